// One terminal as it is seen: xterm.js, set up so that output can do nothing
// but be shown. It knows nothing of the gateway.

import './styles.js';
import { FitAddon } from './addon-fit.mjs';
import { Unicode11Addon } from './addon-unicode11.mjs';
import { Answers } from './answers.js';
import { Stacks, limitCounts } from './counts.js';
import { plain } from './elements.js';
import { Terminal } from './xterm.mjs';

const SCROLLBACK = 5_000; // lines
const LONGEST_TITLE = 60;
const LARGEST_PASTE = 4 * 1024 * 1024; // characters
// With these in it, pasted text could end the brackets that a shell relies on, and be obeyed.
const CONTROLS = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f]/g;

const LIGHT = {
  background: '#ffffff', foreground: '#1b1f24', cursor: '#0b6e4f', cursorAccent: '#ffffff', selectionBackground: '#b7d7f5',
  black: '#1b1f24', red: '#b3261e', green: '#1a6b32', yellow: '#7a5200', blue: '#0b57b0', magenta: '#8a2a8a', cyan: '#0f6674', white: '#5b6672',
  brightBlack: '#5b6672', brightRed: '#c8372d', brightGreen: '#22803d', brightYellow: '#8f6200', brightBlue: '#1967c9', brightMagenta: '#a03aa0', brightCyan: '#137a8b', brightWhite: '#1b1f24',
};
const DARK = {
  background: '#14181d', foreground: '#e3e8ee', cursor: '#7fd1b9', cursorAccent: '#14181d', selectionBackground: '#31506e',
  black: '#20262d', red: '#ff7b72', green: '#7ee787', yellow: '#e3b341', blue: '#79b8ff', magenta: '#d2a8ff', cyan: '#76e3ea', white: '#c9d1d9',
  brightBlack: '#6e7a87', brightRed: '#ffa198', brightGreen: '#a5f3ad', brightYellow: '#f2cc60', brightBlue: '#a5d0ff', brightMagenta: '#e2c5ff', brightCyan: '#b3f0ff', brightWhite: '#ffffff',
};
const isDark = matchMedia('(prefers-color-scheme: dark)');

export class View {
  #terminal;
  #fit = new FitAddon();
  #answers;
  #stacks = new Stacks();
  #hooks;
  #title = null;
  #isReadOnly = false;

  // hooks: typed(text), titled(text), refused(text), leave(); each may be left out.
  constructor(place, hooks = {}, { screenReader = false } = {}) {
    this.#hooks = hooks;
    this.place = place;
    this.#terminal = new Terminal({
      allowProposedApi: true, // for the widths of newer characters
      allowTransparency: false,
      convertEol: false,
      cursorBlink: !matchMedia('(prefers-reduced-motion: reduce)').matches,
      fontFamily: 'ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace',
      fontSize: 14,
      linkHandler: null,
      logLevel: 'off', // output must not fill the console either
      minimumContrastRatio: 3,
      screenReaderMode: screenReader,
      scrollback: SCROLLBACK,
      theme: isDark.matches ? DARK : LIGHT,
      windowOptions: {}, // none: no program moves, measures or names the window
    });
    this.#terminal.loadAddon(this.#fit);
    this.#terminal.loadAddon(new Unicode11Addon());
    this.#terminal.unicode.activeVersion = '11';
    this.#answers = new Answers(this.#terminal);
    limitCounts(this.#terminal);
    this.#terminal.open(place);
    this.#terminal.onData((text) => this.#hooks.typed?.(text));
    this.#terminal.onTitleChange((title) => this.#name(title));
    this.#terminal.attachCustomKeyEventHandler((event) => this.#ownKey(event));
    // Before xterm.js gets it, which would pass controls on.
    place.addEventListener('paste', this.#paste, { capture: true });
    isDark.addEventListener('change', this.#dress);
  }

  get cols() {
    return this.#terminal.cols;
  }

  get rows() {
    return this.#terminal.rows;
  }

  // The size that fits the place, as far as a gateway takes it; null while it is not shown.
  wanted() {
    const found = this.#fit.proposeDimensions();
    if (found === undefined || !(found.cols > 1 && found.rows > 0)) return null;
    return { cols: clamp(found.cols, 10, 500), rows: clamp(found.rows, 5, 200) };
  }

  resize(cols, rows) {
    if (cols !== this.cols || rows !== this.rows) this.#terminal.resize(clamp(cols, 1, 1000), clamp(rows, 1, 1000));
  }

  // Show output; `shown` is called once it is on the screen.
  write(text, shown) {
    this.#terminal.write(this.#stacks.cut(text), shown);
  }

  // Whether questions of the output are answered by typing.
  answer(isAllowed) {
    this.#answers.allow(isAllowed && !this.#isReadOnly);
  }

  reset() {
    this.#terminal.reset();
  }

  readOnly(isReadOnly) {
    this.#isReadOnly = isReadOnly;
    this.#terminal.options.disableStdin = isReadOnly;
  }

  screenReader(isOn) {
    this.#terminal.options.screenReaderMode = isOn;
  }

  type(text) {
    this.#terminal.input(text);
  }

  focus() {
    this.#terminal.focus();
  }

  dispose() {
    isDark.removeEventListener('change', this.#dress);
    this.#terminal.dispose();
  }

  #name(title) {
    const isWaiting = this.#title !== null;
    this.#title = title;
    // A program may rename itself without end; people see the last of each picture.
    if (isWaiting) return;
    requestAnimationFrame(() => {
      const text = plain(this.#title, LONGEST_TITLE);
      this.#title = null;
      this.#hooks.titled?.(text);
    });
  }

  #ownKey(event) {
    if (!(event.ctrlKey && event.shiftKey) || event.altKey || event.metaKey) return true;
    const key = event.key.toLowerCase();
    if (!['c', 'v', 'l'].includes(key)) return true;
    if (event.type === 'keydown') {
      // The clipboard's own interface needs TLS; this works on a plain address, too.
      if (key === 'c') document.execCommand('copy');
      if (key === 'l') this.#hooks.leave?.();
      if (key !== 'v') event.preventDefault();
    }
    return false; // pasting is the browser's own doing
  }

  #paste = (event) => {
    event.preventDefault();
    event.stopPropagation();
    const text = event.clipboardData?.getData('text/plain') ?? '';
    if (text.length > LARGEST_PASTE) {
      this.#hooks.refused?.('That is too much to paste; put it into a file of the workspace instead.');
      return;
    }
    if (!this.#isReadOnly) this.#terminal.paste(text.replace(CONTROLS, ''));
  };

  #dress = () => {
    this.#terminal.options.theme = isDark.matches ? DARK : LIGHT;
  };
}

function clamp(value, least, most) {
  return Math.max(least, Math.min(most, value));
}
