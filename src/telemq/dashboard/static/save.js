// Links to what the API answers, which work with a token too: a plain link could not send it.

import { request, token } from "./api.js";
import { make } from "./dom.js";
import { notice } from "./shell.js";

/** Give a link to an API address; with a token it saves the answer under the name instead. */
export function saved(url, words, name) {
  return make(
    "a",
    {
      href: url.href,
      onclick: async (event) => {
        if (!token()) return;
        event.preventDefault();
        try {
          const response = await request(url);
          const place = URL.createObjectURL(await response.blob());
          make("a", { href: place, download: name }).click();
          setTimeout(() => URL.revokeObjectURL(place), 60_000);
        } catch (error) {
          notice("save", error);
        }
      },
    },
    words,
  );
}
