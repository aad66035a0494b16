// One terminal of the gateway, shown in a view: attaching and coming back to
// where it was, typing in order, acknowledging what was drawn, keeping its size.

import { GatewayLost } from './gateway.js';

const ACK_EVERY = 128 * 1024; // characters drawn
const CHUNK = 16 * 1024; // characters sent at once
const MOST_UNSENT = 8 * 1024 * 1024;
const MOST_HELD = 4 * 1024 * 1024; // characters of output while an attach is under way
const MOST_TRIES = 100;
const SETTLE = 80; // milliseconds without a change of size

export class Attached {
  #gateway;
  #view;
  #hooks;
  #wantsMode;
  #offset = null; // of the output that was taken, null before the first time
  #drawn = 0;
  #acked = 0;
  #held = null; // output that came while attaching
  #unsent = '';
  #isSending = false;
  #isResizing = 0;
  #watcher;

  // hooks: ended(how), noticed(payload), attached(answer), failed(error); each may be left out.
  constructor(gateway, view, id, hooks = {}, { mode = 'write' } = {}) {
    this.#gateway = gateway;
    this.#view = view;
    this.#hooks = hooks;
    this.#wantsMode = mode;
    this.id = id;
    this.mode = mode;
    this.isAttached = false;
    this.hasEnded = false;
    this.#watcher = new ResizeObserver(() => this.fit());
    this.#watcher.observe(view.place);
  }

  // Take part, from where we were if we have been; again after every loss.
  async attach() {
    if (this.hasEnded || this.#held !== null) return;
    const held = (this.#held = []);
    held.size = 0;
    const isBack = this.#offset !== null;
    const params = { terminalId: this.id, mode: this.#wantsMode };
    if (isBack) params.offset = this.#offset;
    try {
      const answer = await this.#gateway.call('terminal.attach', params);
      this.#begin(answer, isBack);
    } catch (error) {
      this.#held = null;
      if (error instanceof GatewayLost) return; // whoever notices the next connection attaches again
      this.#end({ reason: 'gone' });
      this.#hooks.failed?.(error);
      return;
    }
    this.#held = null;
    for (const output of held) this.#output(output);
    this.fit();
  }

  #begin(answer, isBack) {
    const view = this.#view;
    this.mode = answer.mode ?? this.#wantsMode;
    view.readOnly(this.mode === 'read');
    // What comes now was asked and answered before, or is none of our business.
    view.answer(false);
    if (isBack && answer.truncated) view.reset();
    view.resize(answer.cols, answer.rows);
    this.#offset = answer.offset;
    this.isAttached = true;
    view.write(answer.data, () => {
      view.answer(true);
      this.#draw(answer.offset, { acknowledge: true });
    });
    this.#hooks.attached?.(answer, isBack);
    if (answer.exited) this.#end(answer.exited);
  }

  // The connection is gone: what was typed and not sent is dropped, since
  // nobody can tell what the shell would make of it by then.
  lose() {
    this.isAttached = false;
    this.#unsent = '';
  }

  event(name, payload) {
    if (name === 'terminal.output') this.#output(payload);
    else if (name === 'terminal.exit') this.#end(payload);
    else if (name === 'terminal.notice') this.#hooks.noticed?.(payload);
    else if (name === 'terminal.resized') this.#view.resize(payload.cols, payload.rows);
  }

  type(text) {
    if (!this.isAttached || this.hasEnded || this.mode === 'read') return false;
    if (this.#unsent.length + text.length > MOST_UNSENT) return false;
    this.#unsent += text.toWellFormed(); // half a character could not be sent at all
    this.#send();
    return true;
  }

  // Make the terminal as large as its place.
  fit() {
    clearTimeout(this.#isResizing);
    this.#isResizing = setTimeout(() => this.#resize(), SETTLE);
  }

  async detach() {
    this.#close();
    if (this.isAttached) await this.#gateway.call('terminal.detach', { terminalId: this.id }).catch(() => {});
  }

  #close() {
    this.#watcher.disconnect();
    clearTimeout(this.#isResizing);
  }

  #output(payload) {
    if (this.#held !== null) {
      this.#held.size += payload.data.length;
      if (this.#held.size <= MOST_HELD) this.#held.push(payload);
      return;
    }
    if (this.#offset === null) return;
    let { data } = payload;
    const start = payload.offset - characters(data);
    if (payload.offset <= this.#offset) return; // was part of what we attached with
    if (start > this.#offset) {
      this.attach(); // something is missing in between: ask for it
      return;
    }
    if (start < this.#offset) data = [...data].slice(this.#offset - start).join('');
    this.#offset = payload.offset;
    this.#view.write(data, () => this.#draw(payload.offset));
  }

  #draw(offset, { acknowledge = false } = {}) {
    this.#drawn = Math.max(this.#drawn, offset);
    if (!acknowledge && this.#drawn - this.#acked < ACK_EVERY) return;
    if (!this.isAttached) return;
    this.#acked = this.#drawn;
    this.#gateway.call('terminal.ack', { terminalId: this.id, offset: this.#drawn }).catch(() => {});
  }

  // One request at a time: two under way could overtake each other.
  async #send() {
    if (this.#isSending) return;
    this.#isSending = true;
    try {
      while (this.#unsent !== '' && this.isAttached) {
        const chunk = head(this.#unsent, CHUNK);
        this.#unsent = this.#unsent.slice(chunk.length);
        await this.#write(chunk);
      }
    } catch (error) {
      this.#unsent = '';
      if (!(error instanceof GatewayLost)) this.#hooks.failed?.(error);
    } finally {
      this.#isSending = false;
    }
  }

  // A program that does not read makes us wait; what waits is bounded.
  async #write(data) {
    for (let tries = 1; ; tries += 1) {
      try {
        await this.#gateway.call('terminal.write', { terminalId: this.id, data });
        return;
      } catch (error) {
        if (!error.retryable || tries >= MOST_TRIES || !this.isAttached) throw error;
        await new Promise((passed) => setTimeout(passed, error.retryAfter));
      }
    }
  }

  async #resize() {
    const wanted = this.#view.wanted();
    if (wanted === null || !this.isAttached || this.hasEnded || this.mode === 'read') return;
    if (wanted.cols === this.#view.cols && wanted.rows === this.#view.rows) return;
    try {
      const made = await this.#gateway.call('terminal.resize', { terminalId: this.id, ...wanted });
      this.#view.resize(made.cols, made.rows);
    } catch (error) {
      if (!(error instanceof GatewayLost)) this.#hooks.failed?.(error);
    }
  }

  #end(how) {
    if (this.hasEnded) return;
    this.hasEnded = true;
    this.isAttached = false;
    this.#unsent = '';
    this.#close();
    this.#view.readOnly(true);
    this.#hooks.ended?.(how);
  }
}

// Positions count characters, which may be two units of a JavaScript string.
export function characters(text) {
  let count = text.length;
  for (let at = 0; at < text.length - 1; at += 1) {
    const unit = text.charCodeAt(at);
    if (unit >= 0xd800 && unit < 0xdc00) {
      const next = text.charCodeAt(at + 1);
      if (next >= 0xdc00 && next < 0xe000) {
        count -= 1;
        at += 1;
      }
    }
  }
  return count;
}

// The first `most` units of `text`, but no half character.
function head(text, most) {
  if (text.length <= most) return text;
  const last = text.charCodeAt(most - 1);
  return text.slice(0, last >= 0xd800 && last < 0xdc00 ? most - 1 : most);
}
