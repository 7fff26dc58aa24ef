// Asks one pair after the other. Answers stay in this browser; they leave it as a file that the user saves.
"use strict";
const find = (id) => document.getElementById(id);
const place = find("review");
const questions = [...document.querySelectorAll(".question")];
const words = ["same", "different", "unsure"];
const keys = { s: "same", d: "different", u: "unsure", b: "back" };
const storage = `icsr review ${place.dataset.name}`;
const pair = (one) => JSON.stringify([one.dataset.first, one.dataset.second]);
let answers = {};
try {
  answers = JSON.parse(localStorage.getItem(storage)) ?? {};
  localStorage.setItem(storage, JSON.stringify(answers));
} catch {
  find("unkept").hidden = false;
}
const open = () => {
  const first = questions.findIndex((one) => !(pair(one) in answers));
  return first < 0 ? questions.length : first;
};
let at = open();
const show = () => {
  questions.forEach((one, number) => { one.hidden = number !== at; });
  find("done").hidden = at < questions.length;
  const given = questions.map((one) => answers[pair(one)]).filter(Boolean);
  const counts = words.map((word) => given.filter((one) => one === word).length);
  find("bar").value = given.length;
  find("count").textContent =
    `${given.length} of ${questions.length} answered: ${counts[0]} same, ${counts[1]} different, ${counts[2]} not sure`;
  const chosen = at < questions.length ? answers[pair(questions[at])] : undefined;
  for (const word of words) {
    find(word).disabled = at === questions.length;
    find(word).ariaPressed = String(word === chosen);
  }
  find("back").disabled = at === 0;
  find("save").classList.toggle("main", at === questions.length && questions.length > 0);
};
const answer = (word) => {
  if (at === questions.length) return;
  answers[pair(questions[at])] = word;
  try {
    localStorage.setItem(storage, JSON.stringify(answers));
  } catch {
    find("unkept").hidden = false;
  }
  at += 1;
  show();
  if (at === questions.length) find("save").focus();
};
const back = () => {
  at = Math.max(0, at - 1);
  show();
};
const cell = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
const table = () => {
  const given = questions.filter((one) => pair(one) in answers).map((one) => [one.dataset.first, one.dataset.second, answers[pair(one)]]);
  const known = [...find("known").children].map((one) => [one.dataset.first, one.dataset.second, one.dataset.answer]);
  return [["first", "second", "answer"], ...known, ...given].map((row) => `${row.map(cell).join(",")}\n`).join("");
};
const save = () => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([table()], { type: "text/csv" }));
  link.download = place.dataset.file;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
};
for (const word of words) find(word).addEventListener("click", () => answer(word));
find("back").addEventListener("click", back);
find("save").addEventListener("click", save);
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  const word = keys[event.key.toLowerCase()];
  if (word === "back") back();
  else if (word) answer(word);
});
show();
