// A client of the Gateway's WebSocket: requests and their answers, events, and
// coming back after a loss. It knows nothing of terminals.

const FIRST_WAIT = 500; // milliseconds, doubled each time
const LONGEST_WAIT = 15_000;
const PATIENCE = 30_000; // for one answer
const HANDSHAKE_PATIENCE = 15_000;
const USUAL_TICK = 30_000;
const SILENT_TICKS = 2.5; // then nobody is there, whatever the socket says

export class GatewayLost extends Error {
  constructor() {
    super('the connection to the gateway is interrupted');
  }
}

export class GatewayRefused extends Error {
  constructor(error) {
    super(error?.message ?? 'the gateway refused');
    this.code = error?.code ?? 'UNKNOWN';
    this.retryable = error?.retryable === true;
    this.retryAfter = error?.retryAfterMs ?? 250; // milliseconds
  }
}

export class Gateway {
  #url;
  #protocols;
  #hooks;
  #socket = null;
  #waiting = new Map(); // request id -> {resolve, reject, timer}
  #lastId = 0;
  #attempts = 0;
  #retry = 0;
  #watch = 0;
  #heard = 0;
  #stopped = true;

  // hooks: opened(hello), lost(), event(name, payload), refused(error), and
  // async isWelcome(): asked before another attempt whether there is any sense in it.
  constructor(url, hooks, { protocols = [] } = {}) {
    this.#url = url;
    this.#protocols = protocols;
    this.#hooks = hooks;
    this.isOpen = false;
  }

  start() {
    this.#stopped = false;
    addEventListener('online', this.#hurry);
    document.addEventListener('visibilitychange', this.#hurry);
    this.#dial();
  }

  stop() {
    this.#stopped = true;
    removeEventListener('online', this.#hurry);
    document.removeEventListener('visibilitychange', this.#hurry);
    clearTimeout(this.#retry);
    this.#drop();
  }

  // The answer to a request; rejects with GatewayLost or GatewayRefused.
  call(method, params = {}) {
    if (!this.isOpen) return Promise.reject(new GatewayLost());
    return this.#request(method, params, PATIENCE);
  }

  #request(method, params, patience) {
    const id = String((this.#lastId += 1));
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#waiting.delete(id);
        reject(new GatewayRefused({ code: 'TIMEOUT', message: `${method} was not answered in time` }));
      }, patience);
      this.#waiting.set(id, { resolve, reject, timer });
      this.#socket.send(JSON.stringify({ type: 'req', id, method, params }));
    });
  }

  #dial() {
    clearTimeout(this.#retry);
    const socket = new WebSocket(this.#url, this.#protocols);
    this.#socket = socket;
    socket.onopen = () => this.#greet(socket);
    socket.onmessage = (message) => this.#take(socket, message.data);
    socket.onclose = () => this.#lose(socket);
  }

  async #greet(socket) {
    try {
      const hello = await this.#request('connect', GREETING, HANDSHAKE_PATIENCE);
      if (socket !== this.#socket) return;
      this.isOpen = true;
      this.#attempts = 0;
      this.#heard = performance.now();
      const tick = hello.policy?.tickIntervalMs ?? USUAL_TICK;
      this.#watch = setInterval(() => this.#look(socket, tick * SILENT_TICKS), tick);
      this.#hooks.opened(hello);
    } catch (error) {
      if (error instanceof GatewayLost) return; // the socket's end has been seen to
      if (!error.retryable && error.code !== 'TIMEOUT') {
        this.stop();
        this.#hooks.refused(error);
        return;
      }
      socket.close();
    }
  }

  #take(socket, data) {
    if (socket !== this.#socket || typeof data !== 'string') return;
    this.#heard = performance.now();
    const frame = JSON.parse(data);
    if (frame.type === 'event') {
      this.#hooks.event(frame.event, frame.payload ?? {});
      return;
    }
    const asked = this.#waiting.get(frame.id);
    if (frame.type !== 'res' || asked === undefined) return;
    this.#waiting.delete(frame.id);
    clearTimeout(asked.timer);
    if (frame.ok) asked.resolve(frame.payload ?? {});
    else asked.reject(new GatewayRefused(frame.error));
  }

  #look(socket, longest) {
    // A network that went away says nothing, not even that.
    if (performance.now() - this.#heard > longest) this.#lose(socket);
  }

  #drop() {
    const socket = this.#socket;
    this.#socket = null;
    this.isOpen = false;
    clearInterval(this.#watch);
    if (socket !== null) {
      socket.onopen = socket.onmessage = socket.onclose = null;
      socket.close();
    }
    const waiting = [...this.#waiting.values()];
    this.#waiting.clear();
    for (const asked of waiting) {
      clearTimeout(asked.timer);
      asked.reject(new GatewayLost());
    }
  }

  async #lose(socket) {
    if (socket !== this.#socket) return;
    this.#drop();
    this.#hooks.lost();
    // A browser does not say why an upgrade was refused; the page finds out.
    if (!(await this.#hooks.isWelcome())) {
      this.stop();
      this.#hooks.refused(null);
      return;
    }
    if (this.#stopped || this.#socket !== null) return;
    const wait = Math.min(LONGEST_WAIT, FIRST_WAIT * 2 ** this.#attempts);
    this.#attempts += 1;
    // Apart from each other, as all clients of a gateway lose it at once.
    this.#retry = setTimeout(() => this.#dial(), wait * (0.5 + Math.random() / 2));
  }

  #hurry = () => {
    const isDue = !this.#stopped && this.#socket === null && document.visibilityState === 'visible';
    if (isDue) this.#dial();
  };
}

const GREETING = {
  minProtocol: 4,
  maxProtocol: 4,
  client: { id: 'openclawmu-web', version: '1', platform: 'web', mode: 'webchat', displayName: 'Browser' },
};

// The address of this gateway's WebSocket, below `prefix`.
export function socketUrl(prefix) {
  const scheme = location.protocol === 'https:' ? 'wss:' : 'ws:';
  return `${scheme}//${location.host}${prefix}/ws`;
}
