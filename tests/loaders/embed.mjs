// Asks a server as a program of OpenAI's does: node embed.mjs URL MODEL TEXT...
import OpenAI from "openai";

const [url, model, ...input] = process.argv.slice(2);
const client = new OpenAI({ baseURL: url, apiKey: "none", maxRetries: 0 });
const { data, usage } = await client.embeddings.create({ model, input }); // in base64, unasked
const short = await client.embeddings.create({
  model: "text-embedding-3-small", input: input[0], dimensions: 8, encoding_format: "float",
});
const models = [];
for await (const { id } of client.models.list()) models.push(id);
const refused = await client.embeddings.create({ model, input: [[1, 2]] }).catch((error) => ({
  status: error.status, param: error.param, message: error.message,
}));
console.log(JSON.stringify({
  vectors: data.map(({ embedding }) => Array.from(embedding)), usage,
  short: short.data[0].embedding, models, refused,
}));
