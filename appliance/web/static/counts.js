// What would keep the page busy. xterm.js takes counts up to
// 2,147,483,647 and does as it is told: ten bytes of output would keep the page
// busy for minutes, or fill its memory. No program means more than a screen.

const LINES = ['L', 'M', 'S', 'T']; // insert, delete, scroll up, scroll down
const COLUMNS = ['I', 'Z', 'b']; // tabs, tabs back, repeat the last character

export function limitCounts(terminal) {
  const { parser } = terminal;
  // Handled is forgotten: what is larger than the screen is not done at all.
  for (const final of LINES) parser.registerCsiHandler({ final }, ([count]) => count > terminal.rows);
  for (const final of COLUMNS) parser.registerCsiHandler({ final }, ([count]) => count > terminal.cols);
}

const MOST_STACKED = 16; // marks on one character; living languages use a few
const STACKED = /[\p{M}\p{Cf}]+/gu;
const PLAIN = /^[\x00-\u02ff]*$/; // most output, and nothing in it stacks

// Cuts what stacks on one character: a browser takes seconds to shape thousands.
export class Stacks {
  #run = 0; // at the end of what was passed on before

  cut(text) {
    if (PLAIN.test(text)) {
      if (text !== '') this.#run = 0;
      return text;
    }
    const before = this.#run;
    this.#run = 0;
    return text.replace(STACKED, (run, at) => {
      const marks = [...run];
      const room = Math.max(0, MOST_STACKED - (at === 0 ? before : 0));
      if (at + run.length === text.length) this.#run = marks.length + (at === 0 ? before : 0);
      return marks.length <= room ? run : marks.slice(0, room).join('');
    });
  }
}
