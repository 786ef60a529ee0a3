// Choosing examples, and players that say how long they last once they come near; the page works without.
for (const browser of document.querySelectorAll(".browser")) {
  const form = browser.querySelector("form");
  const cards = [...browser.querySelectorAll("article")];
  const choose = () => {
    const words = form.words.value.trim().toLowerCase();
    let shown = 0;
    for (const card of cards) {
      const fits = (!form.source.value || card.dataset.source === form.source.value)
        && (!form.has.value || card.dataset.has.split(" ").includes(form.has.value))
        && (!words || card.textContent.toLowerCase().includes(words));
      card.hidden = !fits;
      shown += fits;
    }
    for (const group of browser.querySelectorAll(".source")) {
      group.hidden = !group.querySelector("article:not([hidden])");
    }
    form.querySelector("output").textContent = `${shown} of ${cards.length} examples`;
  };
  form.hidden = false;
  form.addEventListener("input", choose);
  form.addEventListener("submit", (event) => event.preventDefault());
  choose();
}
const near = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (entry.isIntersecting) {
      entry.target.preload = "metadata";
      near.unobserve(entry.target);
    }
  }
}, { rootMargin: "400px" });
for (const player of document.querySelectorAll("audio, video")) near.observe(player);
