// Asks for the labels of files, as any program on the JavaScript SDK does: `endpoint` alone is ours.
// node detect_labels.mjs ENDPOINT FILE... prints a JSON array, an answer or an error's name for each.
import { readFile } from "node:fs/promises";
import { DetectLabelsCommand, RekognitionClient } from "@aws-sdk/client-rekognition";

const [endpoint, ...files] = process.argv.slice(2);
const client = new RekognitionClient({ endpoint, maxAttempts: 1 });
const answers = files.map(async (file) => {
  const image = file.startsWith("s3://") ? { S3Object: { Bucket: file.split("/")[2], Name: file.split("/").slice(3).join("/") } } : { Bytes: await readFile(file) };
  try {
    const { Labels } = await client.send(new DetectLabelsCommand({ Image: image, MaxLabels: 10, MinConfidence: 20 }));
    return { labels: Labels };
  } catch (error) {
    return { error: error.name, message: error.message, status: error.$metadata?.httpStatusCode };
  }
});
console.log(JSON.stringify(await Promise.all(answers)));
