import { describe, expect, it } from 'vitest';
import { KvPages, PageTable, pagesFor } from '../../src/engine/kv-pages.ts';

describe('KvPages', () => {
  it('gives out every page once, low ids first, and those freed last again', () => {
    const pages = new KvPages(4);
    expect([pages.take(), pages.take(), pages.take(), pages.take()]).toEqual([0, 1, 2, 3]);
    expect(pages.free).toBe(0);
    pages.release(1);
    pages.release(2);
    expect(pages.free).toBe(2);
    expect([pages.take(), pages.take()]).toEqual([2, 1]);
  });

  it('refuses to give what is not free and to free what is not taken', () => {
    const pages = new KvPages(1);
    expect(() => pages.release(0)).toThrow(expect.objectContaining({ code: 'INTERNAL' }));
    pages.take();
    expect(() => pages.take()).toThrow(expect.objectContaining({ code: 'INTERNAL' }));
    pages.release(0);
    for (const page of [0, 1, -1, 0.5]) {
      expect(() => pages.release(page)).toThrow(expect.objectContaining({ code: 'INTERNAL' }));
    }
    expect(pages.free).toBe(1);
  });
});

describe('PageTable', () => {
  it('grows on demand, by whole pages, all or nothing', () => {
    const pool = new KvPages(20);
    const table = new PageTable(pool);
    expect(table.reserve(32)).toBe(true);
    expect([...table.pages]).toEqual([0]);
    expect(table.reserve(33)).toBe(true);
    expect([...table.pages]).toEqual([0, 1]);
    expect(table.reserve(3)).toBe(true);
    expect(table.pages.length).toBe(2);
    expect(table.reserve(20 * 32 + 1)).toBe(false);
    expect([table.pages.length, pool.free]).toEqual([2, 18]);
    expect(table.reserve(20 * 32)).toBe(true);
    expect([...table.pages]).toEqual(Array.from({ length: 20 }, (_, i) => i));
  });

  it('leaves views of a pass in flight alone when it grows or is released', () => {
    const pool = new KvPages(20);
    const table = new PageTable(pool);
    table.reserve(80);
    const view = table.pages;
    table.reserve(600);
    table.release();
    table.reserve(32);
    expect([...view]).toEqual([0, 1, 2]);
    const second = table.pages;
    const before = [...second];
    table.release();
    pool.take();
    table.reserve(32);
    expect(table.pages[0]).not.toBe(before[0]);
    expect([...second]).toEqual(before);
    expect(pool.free).toBe(18);
    table.release();
    table.release();
    expect(pool.free).toBe(19);
  });

  it('counts pages of positions', () => {
    expect([0, 1, 32, 33].map(pagesFor)).toEqual([0, 1, 1, 2]);
  });
});
