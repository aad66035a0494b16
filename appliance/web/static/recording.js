// An asciicast v2 recording: a line of facts, then one line for each event.
// Read as it arrives, and no more of it kept than a browser can bear.

const MOST = 64 * 1024 * 1024; // characters kept; what comes after is left out
const LONGEST_LINE = 32 * 1024 * 1024;

export class Recording {
  header = null;
  events = []; // [seconds, kind, text]
  isCut = false;
  #kept = 0;
  #rest = '';

  // Read a response's body; throws if it is no recording.
  static async read(body) {
    const recording = new Recording();
    const reader = body.pipeThrough(new TextDecoderStream()).getReader();
    for (;;) {
      const { value, done } = await reader.read();
      if (done) break;
      if (!recording.#take(value)) {
        await reader.cancel();
        break;
      }
    }
    if (recording.#rest !== '') recording.#line(recording.#rest);
    if (recording.header === null) throw new Error('That is no recording.');
    return recording;
  }

  get duration() {
    return this.events.length === 0 ? 0 : this.events[this.events.length - 1][0];
  }

  // Whether there is room for more.
  #take(text) {
    const lines = (this.#rest + text).split('\n');
    this.#rest = lines.pop();
    for (const line of lines) if (line !== '') this.#line(line);
    if (this.#kept <= MOST && this.#rest.length <= LONGEST_LINE) return true;
    this.isCut = true;
    this.#rest = '';
    return false;
  }

  #line(line) {
    let value;
    try {
      value = JSON.parse(line);
    } catch {
      this.isCut = true; // the last line of a recording that was interrupted
      return;
    }
    if (this.header === null) {
      if (value?.version !== 2) throw new Error('That is no recording of version 2.');
      this.header = value;
      return;
    }
    if (!Array.isArray(value) || typeof value[0] !== 'number' || typeof value[2] !== 'string') return;
    this.#kept += line.length;
    this.events.push([Math.max(this.duration, value[0]), value[1], value[2]]);
  }
}

// When each event is shown, with no pause longer than `longest` seconds.
export function timeline(events, longest = Infinity) {
  const times = new Float64Array(events.length);
  let before = 0;
  let at = 0;
  for (const [index, [seconds]] of events.entries()) {
    at += Math.min(longest, Math.max(0, seconds - before));
    before = seconds;
    times[index] = at;
  }
  return times;
}

// The first event later than `seconds`.
export function firstAfter(times, seconds) {
  let low = 0;
  let high = times.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (times[middle] <= seconds) low = middle + 1;
    else high = middle;
  }
  return low;
}
