// @tus/server's own clean-up: node tus.mjs DIR prints the seconds it took and how many went.
import { FileStore } from "@tus/file-store";
import { Server } from "@tus/server";

const [directory] = process.argv.slice(2);
if (directory) {
  const expirationPeriodInMilliseconds = 24 * 3600 * 1000;
  const datastore = new FileStore({ directory, expirationPeriodInMilliseconds });
  const server = new Server({ path: "/files", datastore });
  const begun = performance.now();
  const removed = await server.cleanUpExpiredUploads();
  console.log((performance.now() - begun) / 1000, removed);
}
