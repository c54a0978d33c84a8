import { parentPort } from 'node:worker_threads';
import { type RenderReply, type RenderRequest, renderChatTemplate } from '../model/chat-template-render.ts';

/** Entry of the worker that renders chat templates: one request, one reply. A template that loops is ended from outside. */
if (parentPort === null) throw new Error('chat-template-worker is the entry of a worker thread');
const port = parentPort;
port.on('message', (request: RenderRequest) => port.postMessage(renderChatTemplate(request)));
port.postMessage({ type: 'ready' } satisfies RenderReply);
