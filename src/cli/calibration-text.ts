/** Text of many kinds, to measure on which range the outputs of tiles lie; some 300 tokens. Written for this project. */
export const CALIBRATION_TEXT = `On Saturday the neighbours carried tables into the yard, and everyone brought what they had: \
bread still warm from the oven, a pot of lentils, three kinds of cheese, plums from the tree behind the garage. "Did you \
make this yourself?" asked Ines. "My grandmother did," said Tom, "I only stirred." By six o'clock there were 24 people, \
two dogs and not enough chairs.

How do I share a file between two computers on the same network? First find the address of the machine, for example \
192.168.1.20, then open a connection to it:

    def send(path, host, port=8080):
        with open(path, "rb") as file:
            data = file.read()
        return connect(host, port).write(data)

The river Elbe is about 1,094 kilometres long; it rises in the Czech Republic and flows into the North Sea near Cuxhaven. \
In 1867 a bridge was built at a cost of $45,000. Water boils at 100 degrees Celsius at sea level, so at 3,000 metres it \
boils at roughly 90. If x + 3 = 10, then x = 7.

- Milk, eggs, flour (500 g)
- Call the dentist before Friday!
- Wie geht es dir? Ça va bien, merci.

Once upon a time there was a fox who could not sleep. He asked the owl why, and the owl, who was tired of questions, \
answered that sleep comes to those who stop looking for it. The fox lay down under the hedge, thought about that for a \
while, and the next thing he knew it was morning.`;
