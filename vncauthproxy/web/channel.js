// What noVNC takes for a WebSocket: binary messages are RFB and go to it, text messages are
// facts about the session and go to the page. It also keeps why the connection was closed.

export class Channel {
  constructor(socket, learn) {
    this.socket = socket;
    this.code = 0;
    this.reason = "";
    this.onopen = null;
    this.onmessage = null;
    this.onerror = null;
    this.onclose = null;
    socket.binaryType = "arraybuffer";
    socket.addEventListener("open", (event) => this.onopen?.(event));
    socket.addEventListener("error", (event) => this.onerror?.(event));
    socket.addEventListener("message", (event) => {
      if (typeof event.data === "string") {
        learn(JSON.parse(event.data));
      } else {
        this.onmessage?.(event);
      }
    });
    socket.addEventListener("close", (event) => {
      this.code = event.code;
      this.reason = event.reason;
      this.onclose?.(event);
    });
  }

  get binaryType() {
    return this.socket.binaryType;
  }

  set binaryType(kind) {
    this.socket.binaryType = kind;
  }

  get protocol() {
    return this.socket.protocol;
  }

  get readyState() {
    return this.socket.readyState;
  }

  get bufferedAmount() {
    return this.socket.bufferedAmount;
  }

  send(data) {
    this.socket.send(data);
  }

  close(code, reason) {
    this.socket.close(code, reason);
  }
}
