// Plays a recording into a view, at a speed, from anywhere.

import { firstAfter, timeline } from './recording.js';

const LONGEST_PAUSE = 2; // seconds, where pauses are shortened
const MOST_AHEAD = 1024 * 1024; // characters given to the view and not drawn yet
const BATCH = 64 * 1024; // characters written at once
const SIZE = /^(\d{1,4})x(\d{1,4})$/;

export class Player {
  #recording;
  #view;
  #changed;
  #times;
  #next = 0; // the event that comes next
  #at = 0; // seconds of the timeline
  #since = 0; // when the clock was last looked at
  #frame = 0;
  #ahead = 0;
  #seeks = 0;
  #isSeeking = false;

  constructor(recording, view, changed) {
    this.#recording = recording;
    this.#view = view;
    this.#changed = changed;
    this.#times = timeline(recording.events, LONGEST_PAUSE);
    this.speed = 1;
    this.isPlaying = false;
    this.#start();
  }

  get position() {
    return this.#at;
  }

  get duration() {
    return this.#times[this.#times.length - 1] ?? 0;
  }

  get markers() {
    const { events } = this.#recording;
    return events.flatMap(([, kind, text], index) => (kind === 'm' ? [{ at: this.#times[index], text }] : []));
  }

  play() {
    if (this.isPlaying) return;
    if (this.#next >= this.#times.length) this.seek(0);
    this.isPlaying = true;
    this.#since = performance.now();
    this.#frame = requestAnimationFrame(() => this.#step());
    this.#changed();
  }

  pause() {
    this.isPlaying = false;
    cancelAnimationFrame(this.#frame);
    this.#changed();
  }

  shortenPauses(isShort) {
    const { events } = this.#recording;
    const place = this.#next;
    this.#times = timeline(events, isShort ? LONGEST_PAUSE : Infinity);
    this.#at = place === 0 ? 0 : this.#times[place - 1];
    this.#changed();
  }

  // Show how it looked at `seconds`: going back is starting again and hurrying on.
  async seek(seconds) {
    const to = Math.max(0, Math.min(this.duration, seconds));
    const seek = (this.#seeks += 1);
    this.#isSeeking = true;
    if (to < this.#at || this.#next === 0) this.#start();
    this.#at = to;
    const last = firstAfter(this.#times, to);
    this.#changed();
    while (seek === this.#seeks && this.#next < last) {
      this.#write(last);
      if (this.#ahead > MOST_AHEAD) await new Promise((drawn) => this.#view.write('', drawn));
    }
    if (seek === this.#seeks) this.#isSeeking = false;
  }

  #start() {
    const { width, height } = this.#recording.header;
    this.#next = 0;
    this.#at = 0;
    this.#view.reset();
    this.#view.resize(size(width, 80), size(height, 24));
  }

  #step() {
    if (!this.isPlaying) return;
    const now = performance.now();
    // The clock stands still while the view has enough to do.
    if (!this.#isSeeking && this.#ahead <= MOST_AHEAD) {
      this.#at = Math.min(this.duration, this.#at + ((now - this.#since) / 1000) * this.speed);
      const last = firstAfter(this.#times, this.#at);
      while (this.#next < last && this.#ahead <= MOST_AHEAD) this.#write(last);
      if (this.#next < last) this.#at = this.#times[this.#next];
    }
    this.#since = now;
    if (this.#next >= this.#times.length) {
      this.pause();
      return;
    }
    this.#changed();
    this.#frame = requestAnimationFrame(() => this.#step());
  }

  // Write some events, up to the one numbered `last`.
  #write(last) {
    const { events } = this.#recording;
    let text = '';
    while (this.#next < last && text.length < BATCH) {
      const [, kind, data] = events[this.#next];
      if (kind === 'r' && text !== '') break; // what came before belongs to the old size
      this.#next += 1;
      if (kind === 'o') text += data;
      if (kind === 'r') {
        this.#resize(data);
        break;
      }
    }
    if (text === '') return;
    this.#ahead += text.length;
    this.#view.write(text, () => {
      this.#ahead -= text.length;
    });
  }

  #resize(data) {
    const found = SIZE.exec(data);
    // Behind what is still to be drawn at the old size.
    if (found) this.#view.write('', () => this.#view.resize(size(Number(found[1]), 80), size(Number(found[2]), 24)));
  }
}

function size(value, usual) {
  return Number.isInteger(value) && value > 0 ? Math.min(value, 500) : usual;
}
