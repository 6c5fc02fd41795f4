"use strict";
// Frames and flow of a sample play in step: both canvases show the same column of one sheet.
class Player {
  constructor(box) {
    const number = (name) => Number(box.dataset[name]);
    this.n = number("n");
    this.first = number("first");
    this.step = number("step");
    this.interval = number("ms");
    this.cell = [number("cellWidth"), number("cellHeight")];
    this.sheet = box.querySelector("img");
    this.canvases = [...box.querySelectorAll("canvas")];
    this.button = box.querySelector("button");
    this.slider = box.querySelector("input");
    this.output = box.querySelector("output");
    this.at = 0;
    this.shownAt = 0;
    this.visible = false;
    this.button.addEventListener("click", () => this.play(!this.playing));
    this.slider.addEventListener("input", () => {
      this.play(false);
      this.show(Number(this.slider.value));
    });
  }
  play(on) {
    this.playing = on;
    this.button.textContent = on ? "Pause" : "Play";
  }
  show(at) {
    this.at = at;
    const [cellWidth, cellHeight] = this.cell;
    this.canvases.forEach((canvas, row) => {
      const { width, height } = canvas;
      const place = [at * cellWidth, row * cellHeight, width, height];
      canvas.getContext("2d").drawImage(this.sheet, ...place, 0, 0, width, height);
    });
    this.slider.value = at;
    this.output.value = `frame ${this.first + at * this.step}`;
  }
  tick(now) {
    if (this.playing && this.visible && now - this.shownAt >= this.interval) {
      this.shownAt = Math.max(this.shownAt + this.interval, now - this.interval);
      this.show((this.at + 1) % this.n);
    }
  }
}

document.body.classList.remove("no-script");
const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
const players = new Map();
const watcher = new IntersectionObserver((entries) => {
  for (const entry of entries) players.get(entry.target).visible = entry.isIntersecting;
});
for (const box of document.querySelectorAll(".player")) {
  const player = new Player(box);
  player.sheet.decode().then(() => {
    players.set(box, player);
    player.show(0);
    player.play(!still);
    watcher.observe(box);
  });
}
const all = document.getElementById("all");
if (all) {
  let on = !still;
  const told = () => { all.textContent = on ? "Pause all" : "Play all"; };
  told();
  all.addEventListener("click", () => {
    on = !on;
    told();
    for (const player of players.values()) player.play(on);
  });
}
const tick = (now) => {
  for (const player of players.values()) player.tick(now);
  requestAnimationFrame(tick);
};
requestAnimationFrame(tick);
