import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { decodeLeaseToken, encodeLeaseToken, LeaseTokens } from "../../src/model/lease-token.ts";

const fences = fc.oneof(fc.nat({ max: 3_000 }), fc.maxSafeNat());
const leases = fc.record({
  queue: fc.constantFrom("mail", "q.1:x_y-z"),
  id: fc.string({ unit: "grapheme", minLength: 1, maxLength: 30 }),
  fence: fences,
});

describe("a lease token", () => {
  it("is read as the lease that it was made of", () => {
    fc.assert(
      fc.property(leases, (lease) => {
        expect(decodeLeaseToken("baton", encodeLeaseToken("baton", lease))).toEqual(lease);
      }),
    );
  });

  it("is the same when it is written in parts, after whichever others", () => {
    fc.assert(
      fc.property(fc.array(leases, { maxLength: 10 }), fc.nat({ max: 3_000 }), (others, fence) => {
        const tokens = new LeaseTokens("baton");
        const following = Array.from({ length: 3 }, (_, i) => ({ queue: "mail", id: "next", fence: fence + i }));
        for (const lease of [...others, ...following]) {
          tokens.encode(lease);
          expect(tokens.first + tokens.second + lease.id).toBe(encodeLeaseToken("baton", lease));
        }
      }),
    );
  });

  it("keeps slashes, line breaks and what else an id may have", () => {
    for (const id of ["a/b", "/", "//", " ", "größe 🎽", "i".repeat(255), `${"ö".repeat(127)}i`]) {
      const lease = { queue: "mail", id, fence: 7 };
      expect(decodeLeaseToken("baton", encodeLeaseToken("baton", lease))).toEqual(lease);
    }
  });

  it.each([
    "",
    "baton",
    "baton/",
    "baton/mail",
    "baton/mail/",
    "baton/mail/7",
    "baton/mail/7/",
    "baton//7/id",
    "baton/mail//id",
    "other/mail/7/id",
    "batonx/mail/7/id",
    "bato/mail/7/id",
    "Baton/mail/7/id",
    " baton/mail/7/id",
    "baton/mail/7A/id",
    "baton/mail/-7/id",
    "baton/mail/7.5/id",
    "baton/mail/ 7/id",
    "baton/mail/zzzzzzzzzzz/id",
    "baton/mail/000000000001/id",
    `baton/mail/7/${"i".repeat(256)}`,
    `baton/mail/7/${"ö".repeat(128)}`,
    `baton/mail/7/${"€".repeat(255)}`,
  ])("is none of this namespace: %j", (token) => {
    expect(decodeLeaseToken("baton", token)).toBeUndefined();
  });
});
