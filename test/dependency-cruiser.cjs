/**
 * The arrows between the rooms of src/ (and no others): each room, and what it may import. Data flows one way:
 * transport → rpc → broker → store. Type-only imports count, too. test/architecture.test.ts runs this.
 */
const ROOMS = {
  model: { rooms: [], packages: ["croner"], builtins: false },
  store: { rooms: ["model"], packages: ["ioredis"], builtins: true },
  broker: { rooms: ["store", "model"], packages: [], builtins: true },
  rpc: { rooms: ["broker", "model"], packages: ["@bufbuild/protobuf", "uuid"], builtins: true, gen: true },
  transport: {
    rooms: ["rpc", "model"],
    packages: ["@bufbuild/protobuf", "@connectrpc/[^/]+", "@grpc/grpc-js"],
    builtins: true,
    gen: true,
  },
  client: { rooms: [], packages: ["@bufbuild/protobuf", "@grpc/grpc-js", "uuid"], builtins: true, gen: true },
  // Its only ways in: the client, and the files of the composition root, which stand in no room.
  cli: { rooms: ["client"], packages: [], builtins: true, root: true },
};

function allowedFor(room, { rooms, packages, gen, root }) {
  const own = [room, ...rooms].map((name) => `^src/${name}/`);
  const fromPackages = packages.map((name) => `^node_modules/${name}/`);
  return [...own, ...fromPackages, ...(gen ? ["^gen/"] : []), ...(root ? ["^src/[^/]+\\.ts$"] : [])];
}

const arrows = Object.entries(ROOMS).map(([room, rule]) => ({
  name: `${room}-imports-only-what-it-may`,
  comment: `src/${room} may import: ${[...rule.rooms, ...rule.packages, ...(rule.gen ? ["gen"] : [])].join(", ") || "nothing"}`,
  severity: "error",
  from: { path: `^src/${room}/` },
  to: { pathNot: allowedFor(room, rule), dependencyTypesNot: rule.builtins ? ["core"] : [] },
}));

module.exports = {
  forbidden: [
    ...arrows,
    {
      name: "a-room-has-its-arrows",
      comment: "A new room under src/ needs its line in ROOMS, at the top of test/dependency-cruiser.cjs.",
      severity: "error",
      from: { path: "^src/[^/]+/", pathNot: Object.keys(ROOMS).map((room) => `^src/${room}/`) },
      to: {},
    },
    { name: "no-cycles", severity: "error", from: { path: "^src/" }, to: { circular: true } },
    { name: "everything-resolves", severity: "error", from: {}, to: { couldNotResolve: true } },
    {
      name: "src-knows-no-test",
      severity: "error",
      from: { path: "^src/" },
      to: { path: "^(test|bench|examples)/" },
    },
    {
      name: "src-lives-on-published-dependencies",
      severity: "error",
      from: { path: "^src/" },
      to: { dependencyTypes: ["npm-dev", "npm-no-pkg", "npm-unknown"] },
    },
  ],
  options: {
    parser: "swc",
    tsPreCompilationDeps: true,
    doNotFollow: { path: ["node_modules", "^gen/"] },
    enhancedResolveOptions: {
      extensions: [".ts", ".js", ".json"],
      exportsFields: ["exports"],
      conditionNames: ["import", "node", "default"],
    },
  },
};
