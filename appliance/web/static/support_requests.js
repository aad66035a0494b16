// What a tenant sees of support: who asks and why, and while somebody is here.

import { clock, make, plain } from './elements.js';

export class SupportRequests {
  #place;
  #hooks;
  #shown = new Map(); // request id -> element

  // hooks: resolve(id, decision), end(id)
  constructor(place, hooks) {
    this.#place = place;
    this.#hooks = hooks;
  }

  // Show how a request stands; what is over disappears.
  update(request) {
    const { requestId, state } = request;
    if (typeof requestId !== 'string') return;
    const before = this.#shown.get(requestId);
    this.#shown.delete(requestId);
    before?.remove();
    const made = { requested: () => this.#question(request), granted: () => this.#badge(request) }[state]?.();
    if (made === undefined) return;
    this.#shown.set(requestId, made);
    this.#place.append(made);
  }

  // Start over with what the gateway lists.
  replace(requests) {
    for (const shown of this.#shown.values()) shown.remove();
    this.#shown.clear();
    for (const request of requests) this.update(request);
  }

  #question(request) {
    const text =
      `${plain(request.admin, 80) || 'The operator'} asks to ${doing(request)} for ${minutes(request)}. ` +
      `Reason given: ${plain(request.reason, 300) || 'none'}`;
    return make(
      'div',
      { className: 'notice asking', role: 'alertdialog', 'aria-label': 'A request for support access' },
      make('span', {}, text),
      this.#button('Allow', () => this.#hooks.resolve(request.requestId, 'allow')),
      this.#button('Deny', () => this.#hooks.resolve(request.requestId, 'deny')),
    );
  }

  #badge(request) {
    const may = request.mode === 'write' ? 'sees and may type' : 'sees';
    const text = `Support is here: ${plain(request.admin, 80) || 'the operator'} ${may} in ${which(request)} until ${until(request)}.`;
    return make(
      'div',
      { className: 'notice', role: 'status' },
      make('span', {}, text),
      this.#button('End it', () => this.#hooks.end(request.requestId)),
    );
  }

  #button(text, act) {
    const button = make('button', { type: 'button' }, text);
    button.addEventListener('click', async () => {
      button.disabled = true;
      await act();
      button.disabled = false;
    });
    return button;
  }
}

function doing(request) {
  return `${request.mode === 'write' ? 'see, and type in,' : 'see'} ${which(request)}`;
}

function which(request) {
  return request.terminalId ? 'one of your terminals' : 'your terminals';
}

// A question expires by itself; what it asks for begins with the answer.
function minutes(request) {
  return request.minutes === 1 ? 'one minute' : `${Number(request.minutes) || 'some'} minutes`;
}

function until(request) {
  return typeof request.expiresAtMs === 'number' ? clock(request.expiresAtMs) : 'you end it';
}
