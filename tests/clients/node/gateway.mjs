// What every client's tests know: where the gateway is, and what to ask it.

export const url = process.env.GATEWAY_URL;
export const token = process.env.GATEWAY_TOKEN;
export const poorToken = process.env.GATEWAY_POOR_TOKEN;

// The stub's assistant, in each dialect that a provider may speak.
export const models = (process.env.GATEWAY_MODELS ?? "").split(",").filter(Boolean);

export const question = "What's the weather like in San Francisco?";

export const weather = {
  type: "object",
  properties: { city: { type: "string" } },
  required: ["city"],
  additionalProperties: false,
};

// One red pixel, a PNG in base64.
export const image =
  "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC";

export const said = (content) => [{ role: "user", content }];

/** A `fetch` that counts how often it was used. */
export function counting() {
  const counted = async (...asked) => {
    counted.asked += 1;
    return fetch(...asked);
  };
  counted.asked = 0;
  return counted;
}
