// Words with times -> subtitles, broken as a captioner would. The same as captions.py, and tested to be.

const LINE_CHARACTERS = 42;
const CUE_LINES = 2;
// characters that a viewer reads in a second
const READING_SPEED = 17;
const LEAST_SECONDS = 5 / 6;
const MOST_SECONDS = 7;
// a silence of so many seconds always ends a cue
const PAUSE = 1;
// two frames without text tell the eye that it has changed; a gap shorter than the other looks like a flicker
const GAP = 0.08;
const FLICKER = 0.5;

const set = (words) => new Set(words.split(" "));
// a cue or a line should not end in one of these: they belong to what follows
const LEANS_ON = set(
  "a an the this that these those my your his her its our their no every some any of to in on at by for " +
    "from with about into over under between through and or but nor so because if when while although than " +
    "as is are was were be been am will would can could shall should may might must have has had do does did " +
    "not very i you he she it we they who which",
);
// these do, too, and have a dot that ends no sentence
const TITLES = set("mr mrs ms dr messrs prof st");
// and may well end before one of these
const OPENS = set("and or but nor so because if when while although that which who where than then");

/** segments: [{words: [{word, start, end}]}], seconds. Returns [{start, end, lines}], never two at once. */
export function cuesOf(segments) {
  const spoken = segments.filter(({ words }) => words.length);
  const groups = spoken.flatMap(({ words }, i) => divide(words, spoken[i + 1]?.words[0].start ?? null));
  return groups.map((group, i) => {
    const [start, end] = onScreen(group, groups[i + 1]?.[0].start ?? null);
    return { start, end, lines: linesOf(group) };
  });
}

/** The words of a segment as cues, by least total cost over all ways to divide them. after: when the next begins. */
function divide(words, after) {
  const costs = [0];
  const begins = [0];
  for (let end = 1; end <= words.length; end++) {
    const following = words[end] ?? null;
    const breaking = following ? breakCost(words[end - 1], following) : 0;
    const next = following ? following.start : after;
    costs[end] = Infinity;
    for (let begin = end - 1; begin >= 0; begin--) {
      const group = words.slice(begin, end);
      // what does not fit with these words does not fit with more of them either
      if (group.length > 1 && !fits(group)) break;
      const cost = costs[begin] + breaking + cueCost(group, next);
      if (cost < costs[end]) [costs[end], begins[end]] = [cost, begin];
    }
  }
  const groups = [];
  for (let end = words.length; end; end = begins[end]) groups.unshift(words.slice(begins[end], end));
  return groups;
}

/** May these words be one cue? Only the first pause is looked at: words are added in front. */
function fits(group) {
  return (
    group[1].start - group[0].end < PAUSE &&
    group.at(-1).end - group[0].start <= MOST_SECONDS &&
    fill(group) <= CUE_LINES
  );
}

/** What speaks against a cue: that it is one more, scraps of text, and too little time to read it. */
function cueCost(group, after) {
  const [start, end] = onScreen(group, after);
  const seconds = Math.max(end - start, 1e-3);
  const letters = characters(group);
  let cost = 1 + Math.max(0, 1 - letters / 20);
  cost += 3 * Math.max(0, 1 - seconds / LEAST_SECONDS);
  return cost + 3 * Math.min(3, Math.max(0, letters / seconds / READING_SPEED - 1));
}

/** How bad it is to break between two words; less than 0 where it is good. */
function breakCost({ word, end }, following) {
  let cost = -2 * Math.min(1, Math.max(0, following.start - end) / PAUSE);
  cost -= OPENS.has(bare(following.word)) ? 0.5 : 0;
  const plain = bare(word);
  const mark = word.replace(/["'”’)\]]+$/, "").at(-1);
  if (TITLES.has(plain)) return cost + 1.5;
  // nor does the dot of an initial end a sentence
  if ("?!…".includes(mark) || (mark === "." && (length(plain) > 1 || plain === "i"))) return cost - 2;
  if (";:".includes(mark)) return cost - 1;
  if (mark === ",") return cost - 0.5;
  return cost + (LEANS_ON.has(plain) ? 1.5 : 0);
}

/** The word without the punctuation around it, in lower case. */
function bare(word) {
  return word.replace(/^[-.,?!;:…–—'"‘’“”()[\]]+|[-.,?!;:…–—'"‘’“”()[\]]+$/g, "").toLowerCase();
}

/** When a cue comes and goes. after: when the next one comes, null if none does. */
function onScreen(group, after) {
  const { start } = group[0];
  const wanted = Math.max(group.at(-1).end, start + LEAST_SECONDS, start + characters(group) / READING_SPEED);
  let end = Math.min(wanted, start + MOST_SECONDS);
  if (after !== null && after - end < FLICKER) {
    // without the gap if the time is too short for it
    const gap = after - start > LEAST_SECONDS + GAP ? GAP : 0;
    end = Math.min(Math.max(start, after - gap), start + MOST_SECONDS);
  }
  return [start, end];
}

const length = (text) => [...text].length;
const characters = (words) => words.reduce((sum, { word }) => sum + length(word), 0) + words.length - 1;

/** How many lines the words need. */
function fill(words) {
  let lines = 0;
  let used = Infinity;
  for (const { word } of words) {
    used += 1 + length(word);
    if (used > LINE_CHARACTERS) [lines, used] = [lines + 1, length(word)];
  }
  return lines;
}

/** All words on one line if they fit, else on two: about even, broken where the sense allows. */
function linesOf(group) {
  const text = (words) => words.map(({ word }) => word).join(" ");
  if (fill(group) === 1) return [text(group)];
  let [best, least] = [1, Infinity];
  for (let split = 1; split < group.length; split++) {
    const parts = [group.slice(0, split), group.slice(split)];
    const [first, second] = parts.map(characters);
    const over = parts.reduce((n, part) => n + (part.length > 1 ? Math.max(0, characters(part) - LINE_CHARACTERS) : 0), 0);
    // the lower line may be the longer one: it hides less of the picture
    const uneven = Math.abs(first - second) + (first > second ? 4 : 0);
    const cost = 1000 * over + uneven + 12 * breakCost(group[split - 1], group[split]);
    if (cost < least) [best, least] = [split, cost];
  }
  return [text(group.slice(0, best)), text(group.slice(best))];
}
