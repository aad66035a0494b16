// What output may make a terminal do by itself. A program can ask the terminal
// questions (what are you, where is the cursor, which colour is the ground) and
// the answer is typed back as if by a person. Programs ask a few times when
// they start; a file that asks ten thousand times would type into whatever
// reads next, and output that is shown again must not be answered again.

const BURST = 40; // answers at once
const PER_SECOND = 20;

const QUESTIONS = [
  { final: 'c' }, // what are you (DA1, DA2, DA3)
  { prefix: '>', final: 'c' },
  { prefix: '=', final: 'c' },
  { final: 'n' }, // how are you, where is the cursor (DSR)
  { prefix: '?', final: 'n' },
  { intermediates: '$', final: 'p' }, // which modes (DECRQM)
  { prefix: '?', intermediates: '$', final: 'p' },
  { prefix: '>', final: 'q' }, // which version
  { prefix: '?', final: 'u' }, // which keyboard
  { final: 'x' }, // which parameters
];
const COLOURS = [4, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19]; // asked for with "?"

const LINK = 8;
const CLIPBOARD = 52;

export class Answers {
  #isAllowed = false;
  #left = BURST;
  #at = performance.now();

  // Swallows what must not be answered on its way into `terminal`.
  constructor(terminal) {
    const { parser } = terminal;
    for (const question of QUESTIONS) parser.registerCsiHandler(question, () => !this.#mayAnswer());
    parser.registerDcsHandler({ intermediates: '$', final: 'q' }, () => !this.#mayAnswer());
    for (const colour of COLOURS) {
      parser.registerOscHandler(colour, (data) => data.includes('?') && !this.#mayAnswer());
    }
    // Never, whatever a later xterm.js may do with them: the window is ours, so
    // is the clipboard, and a link's text can say anything of where it leads.
    parser.registerCsiHandler({ final: 't' }, () => true);
    parser.registerOscHandler(LINK, () => true);
    parser.registerOscHandler(CLIPBOARD, () => true);
  }

  // Whether to answer from here on: not what is shown again, and nothing for who only looks on.
  allow(isAllowed) {
    this.#isAllowed = isAllowed;
  }

  #mayAnswer() {
    if (!this.#isAllowed) return false;
    const now = performance.now();
    this.#left = Math.min(BURST, this.#left + ((now - this.#at) / 1000) * PER_SECOND);
    this.#at = now;
    if (this.#left < 1) return false;
    this.#left -= 1;
    return true;
  }
}
