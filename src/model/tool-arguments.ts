import type { ChatMessage, JsonObject } from './chat-template-render.ts';

/** A message as templates expect it: the arguments of calls as objects, not as the JSON text that clients send. */
export function withParsedArguments(message: ChatMessage): ChatMessage {
  const calls = message.tool_calls;
  if (calls === undefined) return message;
  const parsed = calls.map(call => ({
    ...call,
    function: { ...call.function, arguments: parsedArguments(call.function.arguments) },
  }));
  return { ...message, tool_calls: parsed };
}

/** Text that is no JSON object stays text. */
function parsedArguments(text: string | JsonObject): string | JsonObject {
  if (typeof text !== 'string') return text;
  try {
    const parsed: unknown = JSON.parse(text);
    const isObject = typeof parsed === 'object' && parsed !== null && !Array.isArray(parsed);
    return isObject ? (parsed as JsonObject) : text;
  } catch (error) {
    if (error instanceof SyntaxError) return text;
    throw error;
  }
}
