import { describe, expect, it } from 'vitest';
import { tileRoutes } from '../../src/cluster/tile-routes.ts';

const asked: string[] = [];
const readers = {
  readTile: (hash: string) => {
    asked.push(hash);
    return Promise.resolve(hash.startsWith('a') ? new Uint8Array([1, 2, 3]) : undefined);
  },
  readOwnTile: (hash: string) => {
    asked.push(`${hash} own`);
    return Promise.resolve(undefined);
  },
  readPackFile: (id: string, name: string) => {
    asked.push(`${id} ${name}`);
    return Promise.resolve(name === 'manifest.json' ? new Uint8Array([4]) : undefined);
  },
  readEmbeddingRow: (id: string, row: number) => {
    asked.push(`${id} row ${row}`);
    return Promise.resolve(row < 10 ? new Uint8Array([row]) : undefined);
  },
};

describe('tileRoutes', () => {
  it('serves tiles and pack files', async () => {
    expect(await tileRoutes(`/potluck/tile/${'a'.repeat(64)}`, readers)).toMatchObject({
      status: 200,
      headers: { 'content-length': '3' },
      bytes: new Uint8Array([1, 2, 3]),
    });
    expect(await tileRoutes('/potluck/pack/0123456789abcdef/manifest.json', readers)).toMatchObject({
      status: 200,
    });
  });

  it('looks only at what lies here where a device asks for a tile that it lost', async () => {
    asked.length = 0;
    const hash = 'a'.repeat(64);
    expect((await tileRoutes(`/potluck/tile/${hash}/own`, readers))?.status).toBe(404);
    expect(asked).toEqual([`${hash} own`]);
  });

  it('serves embedding rows', async () => {
    const found = await tileRoutes('/potluck/embedding/0123456789abcdef/7', readers);
    expect(found).toMatchObject({ status: 200, bytes: new Uint8Array([7]) });
    expect((await tileRoutes('/potluck/embedding/0123456789abcdef/70', readers))?.status).toBe(404);
  });

  it('says what is not here', async () => {
    expect((await tileRoutes(`/potluck/tile/${'b'.repeat(64)}`, readers))?.status).toBe(404);
    expect((await tileRoutes('/potluck/pack/0123456789abcdef/other', readers))?.status).toBe(404);
  });

  it('leaves other paths alone, and never asks for a name that leads elsewhere', async () => {
    asked.length = 0;
    for (const path of [
      '/',
      '/potluck/tile/abc',
      `/potluck/tile/${'A'.repeat(64)}`,
      `/potluck/tile/${'a'.repeat(64)}/`,
      '/potluck/pack/0123456789abcdef/../../secret',
      '/potluck/pack/0123456789abcdef/.hidden',
      '/potluck/pack/../x',
      '/potluck/embedding/0123456789abcdef/-1',
      '/potluck/embedding/0123456789abcdef/1e3',
      '/potluck/embedding/0123456789abcdef/12345678',
      '/potluck/embedding/x/1',
      `/potluck/pack/0123456789abcdef/${'x'.repeat(101)}`,
    ]) {
      expect(await tileRoutes(path, readers), path).toBeNull();
    }
    expect(asked).toEqual([]);
  });
});
