import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { expect, onTestFinished, test } from 'vitest';
import { askOthers, type OtherDevice } from '../../src/daemon/ask-others.ts';
import { fetchEmbeddingRow } from '../../src/daemon/embedding-rows.ts';
import type { LocalModel } from '../../src/daemon/model-store.ts';
import { embeddingFault } from '../../src/model/embedding.ts';
import { crc32c } from '../pack/crc32c-table.ts';

const ROW = 5;
const right = Uint8Array.from({ length: 68 }, (_, i) => i * 3);
const wrong = right.map((byte, i) => (i === 40 ? byte ^ 8 : byte));
const checks = new Uint8Array(4 * (ROW + 1));
new DataView(checks.buffer).setUint32(4 * ROW, crc32c(right), true);
const model = { id: 'abc', manifest: { embedding: { rowBytes: right.length } } } as LocalModel;
const fault = (bytes: Uint8Array) => embeddingFault(ROW, bytes, checks, crc32c);

/** A device that answers each request with these bytes, and what it was asked for. */
async function device(name: string, answer: Uint8Array): Promise<OtherDevice & { asked: string[] }> {
  const asked: string[] = [];
  const server = createServer((request, response) => {
    asked.push(request.url!);
    response.setHeader('content-length', answer.length).end(answer);
  });
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => void server.close());
  return { name, host: '127.0.0.1', linkPort: (server.address() as AddressInfo).port, asked };
}

const rowOf = (others: readonly OtherDevice[]) =>
  askOthers(others, AbortSignal.timeout(10_000), (get, signal) =>
    fetchEmbeddingRow(model, ROW, fault, get, signal),
  );

test('where the row of one device is wrong the next one is asked', async () => {
  const first = await device('first', wrong);
  const short = await device('short', right.subarray(1));
  const second = await device('second', right);
  const third = await device('third', right);
  const { got, from } = await rowOf([first, short, second, third]);
  expect(from).toBe('second');
  expect(got).toEqual(right);
  for (const { asked } of [first, short, second]) expect(asked).toEqual(['/potluck/embedding/abc/5']);
  expect(third.asked).toEqual([]);
});

test('where all have it wrong, or none is here, that is said', async () => {
  const others = [await device('first', right.subarray(1)), await device('second', wrong)];
  await expect(rowOf(others)).rejects.toMatchObject({
    code: 'TILE_CORRUPT',
    message: expect.stringContaining('Embedding row 5'),
  });
  await expect(rowOf([])).rejects.toMatchObject({ code: 'DEVICE_LOST' });
});
