// Reads a page document, a forest and questions as JSON, and writes what forest.js answers.
import { readFileSync } from "node:fs";

const { localModel } = await import(process.argv[2]);
const { page, arrays, asked } = JSON.parse(readFileSync(0, "utf8"));
const model = localModel(page, arrays);
const told = [];

function inBits({ labels, probabilities, numbers }) {
    const flat = Float64Array.from(probabilities ? probabilities.flat() : numbers);
    return { labels, bits: Buffer.from(flat.buffer).toString("base64") };
}

for (const [verb, ...given] of asked) {
    const found = await model[verb](...given);
    told.push(verb === "answers" ? inBits(found) : found);
}
process.stdout.write(JSON.stringify(told));
