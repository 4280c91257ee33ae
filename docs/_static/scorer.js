// How the search orders what it finds: attributes of classes come after everything else.
var Scorer = {
  score: ([, , , description, score, , kind]) =>
    kind === "object" && /attribute|property/.test(description) ? score - 100 : score,
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 0, 2: -5 },
  objPrioDefault: 0,
  title: 20,
  partialTitle: 12,
  term: 5,
  partialTerm: 2,
};
