// @ts-check
// Makes small copies of pictures beside the page: the newest wish first, what left the screen is dropped.

const SIDE_PX = 320;
const AT_ONCE = 2;
const QUALITY = 0.8;

/** @type {{ key: string, file: File }[]} */
const wishes = [];
let running = 0;

onmessage = ({ data }) => {
  if (data.drop) {
    const place = wishes.findIndex((wish) => wish.key === data.drop);
    if (place >= 0) wishes.splice(place, 1);
    return;
  }
  wishes.push(data);
  void work();
};

async function work() {
  if (running >= AT_ONCE) return;
  const wish = wishes.pop();
  if (!wish) return;
  running++;
  let blob = null;
  try {
    blob = await small(wish.file);
  } catch {
    // No browser reads every format: the page shows the worker's copy when the result is there.
  }
  postMessage({ key: wish.key, blob });
  running--;
  void work();
}

/** @param {File} file @returns {Promise<Blob>} */
async function small(file) {
  // One side given, the other follows; it is turned upright on the way.
  const bitmap = await createImageBitmap(file, { resizeWidth: SIDE_PX, resizeQuality: "medium" });
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  const context = canvas.getContext("2d");
  if (!context) throw new Error("no canvas");
  // JPEG has no transparency: white below it, as the model sees it.
  context.fillStyle = "#fff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  return canvas.convertToBlob({ type: "image/jpeg", quality: QUALITY });
}
