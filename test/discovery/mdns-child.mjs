// A device that only looks for others: prints one line of JSON for each that it finds. Ends when its input ends.
// Arguments: id, link port, cluster, further addresses that os.networkInterfaces() is said to have.
import { networkInterfaces } from 'node:os';
import bonjourService from 'bonjour-service';
import { MdnsDiscovery } from '../../build/js/discovery/mdns-discovery.js';

const [id, port, cluster, ...bogus] = process.argv.slice(2);
const { Bonjour } = bonjourService;
const discovery = new MdnsDiscovery({
  bonjour: (options, failed) => new Bonjour(options, failed),
  networkInterfaces: () => ({
    ...networkInterfaces(),
    ...Object.fromEntries(
      bogus.map((address, i) => [`bogus${i}`, [{ address, family: 'IPv4', internal: false }]]),
    ),
  }),
  timers: { now: () => performance.now(), setTimeout, clearTimeout },
  loopback: false,
});
discovery.onFound(found => console.log(JSON.stringify(found)));
discovery.start({ id, name: id, cluster, linkPort: Number(port), version: '0.1.0' });
const report = setInterval(() => console.log(JSON.stringify({ note: discovery.note() })), 200);
process.stdin.on('end', async () => {
  clearInterval(report);
  await discovery.stop();
});
process.stdin.resume();
