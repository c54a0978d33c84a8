import { type Command, Option } from 'commander';
import { keepHeapSmall } from '../../daemon/small-heap.ts';
import { DEFAULT_API_PORT, daemonOptions, type UpFlags } from '../daemon-options.ts';
import { isFree } from '../free-port.ts';
import { homeFolder } from '../home-folder.ts';
import {
  type HostAndPort,
  parseBytes,
  parseChoice,
  parseInteger,
  parseName,
  parsePeer,
  parsePort,
  parsePositive,
} from '../option-values.ts';
import { builtInModel } from '../project.ts';
import { rememberedModel } from '../remembered-model.ts';

export function addUpCommand(program: Command): void {
  program
    .command('up')
    .summary('start this device and join the others')
    .description(
      'Starts this device. Devices of one network and one cluster name find each other and share the model.\n' +
        'Without options it serves the small model that comes along, at http://127.0.0.1:11500.',
    )
    .option(
      '--model <name>',
      "model to serve: a name (see `potluck models`), a pack, a checkpoint folder or a GGUF file; or 'none': it comes from another device.\n" +
        'Remembered for the next start (default: the small model that comes along)',
    )
    .option('--memory <size>', "most memory of the whole process, such as 512M or 1.5G, or 'auto'", text =>
      text === 'auto' ? text : parseBytes('--memory', text),
    )
    .option('--window <size>', 'most memory for weights; the rest streams from disk', text =>
      parseBytes('--window', text),
    )
    .option('--disk <size>', 'most disk for tiles that come from other devices, such as 20G', text =>
      parseBytes('--disk', text),
    )
    .option('--threads <n>', 'threads that compute (default: one for each core)', text =>
      parseInteger('--threads', text, 1, 1024),
    )
    .option('--share <weight>', 'part of the work, relative to other devices (default: its threads)', text =>
      parsePositive('--share', text),
    )
    .option('--name <name>', 'name that people see (default: the host name)', text =>
      parseName('--name', text),
    )
    .option(
      '--cluster <name>',
      'only devices of the same name join',
      text => parseName('--cluster', text),
      'home',
    )
    .option('--port <port>', 'port of the API', text => parsePort('--port', text), DEFAULT_API_PORT)
    .option(
      '--host <address>',
      'address the API listens on; 0.0.0.0 lets other machines chat, too, by its IP address',
      '127.0.0.1',
    )
    .option('--link-port <port>', 'port other devices connect to (default: the one after --port)', text =>
      parsePort('--link-port', text),
    )
    .option(
      '--peer <host:port>',
      'connect to this device without discovery; may be repeated',
      (text, peers: HostAndPort[]) => [...peers, parsePeer('--peer', text)],
      [] as HostAndPort[],
    )
    .option('--no-discovery', 'do not look for devices on the network')
    .option('--advertise <host:port>', 'what others are told to connect to, behind a forwarded port', text =>
      parsePeer('--advertise', text),
    )
    .option('--data <folder>', 'folder for the identity and cached tiles (default: ~/.potluck/device-PORT)')
    .option('--max-tokens <n>', 'most tokens of one answer', text =>
      parseInteger('--max-tokens', text, 1, 1 << 20),
    )
    .option(
      '--no-drafts',
      'do not guess at the next tokens from the text so far (answers are the same with and without)',
    )
    .option(
      '--backend <which>',
      'what computes: auto, native or onnxruntime',
      text => parseChoice('--backend', text, ['auto', 'native', 'onnxruntime']),
      'auto',
    )
    .option(
      '--kernel <name>',
      'variant of the native kernels, for tests (default: the best of this processor)',
    )
    .addOption(new Option('--child', 'announce the ports as JSON and end with standard input').hideHelp())
    .action(async (flags: UpFlags & { readonly child?: true }) => {
      const { findPack } = await import('../model-path.ts');
      const places = { home: homeFolder(process.env), builtIn: builtInModel() };
      const options = await daemonOptions(flags, {
        env: process.env,
        builtInModel: places.builtIn,
        findModel: text => findPack(text, places, process.stderr),
        rememberedModel,
        say: text => process.stderr.write(`${text}\n`),
        isFree,
      });
      if (options.memory !== null) keepHeapSmall();
      const { up } = await import('../up.ts');
      await up(options, flags.child === true, flags.model !== undefined);
    });
}
