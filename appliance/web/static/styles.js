// xterm.js styles itself in two ways that a policy without inline styles
// refuses: <style> elements, and style attributes that it writes as text. The
// first are given this response's nonce; the second are set through the CSSOM,
// which is a script's own doing and which the policy therefore leaves alone.

const nonce = document.getElementById('page-style').nonce;

document.createElement = function createElement(...args) {
  const made = Document.prototype.createElement.apply(document, args);
  if (made instanceof HTMLStyleElement) made.nonce = nonce;
  return made;
};

const setAttribute = Element.prototype.setAttribute;
Element.prototype.setAttribute = function setStyleOrAttribute(name, value) {
  if (name === 'style') this.style.cssText = value;
  else setAttribute.call(this, name, value);
};
