/**
 * What server reflection looks things up in: the files of a FileDescriptorSet, as the bytes that `buf build` wrote
 * (decoding and encoding them again would lose options that we don't know), by name, symbol and extension.
 */
import { readFile } from "node:fs/promises";
import { fromBinary } from "@bufbuild/protobuf";
import { BinaryReader, WireType } from "@bufbuild/protobuf/wire";
import {
  type DescriptorProto,
  type EnumDescriptorProto,
  type FieldDescriptorProto,
  type FileDescriptorProto,
  FileDescriptorProtoSchema,
} from "@bufbuild/protobuf/wkt";

export type DescriptorIndex = {
  /** The file and all that it imports, directly or not; undefined when there is no such file. */
  fileByName(name: string): Buffer[] | undefined;
  /** Likewise for the file that declares a service, method, message, field, oneof, enum, enum value or extension. */
  fileBySymbol(symbol: string): Buffer[] | undefined;
  fileByExtension(extendee: string, fieldNumber: number): Buffer[] | undefined;
  /** Undefined when there is no such message. */
  extensionNumbers(extendee: string): number[] | undefined;
};

const DESCRIPTORS_FILE = new URL("../../gen/descriptors.binpb", import.meta.url);

export async function loadDescriptors(): Promise<DescriptorIndex> {
  return indexDescriptors(await readFile(DESCRIPTORS_FILE));
}

type StoredFile = { readonly bytes: Buffer; readonly imports: readonly string[] };

export function indexDescriptors(fileDescriptorSet: Uint8Array): DescriptorIndex {
  const files = new Map<string, StoredFile>();
  const fileOfSymbol = new Map<string, string>();
  const fileOfExtension = new Map<string, Map<number, string>>();
  const messages = new Set<string>();

  function addFile(bytes: Buffer): void {
    const file = fromBinary(FileDescriptorProtoSchema, bytes);
    files.set(file.name, { bytes, imports: file.dependency });
    const symbols = symbolsOf(file);
    for (const symbol of symbols.names) fileOfSymbol.set(symbol, file.name);
    for (const message of symbols.messages) messages.add(message);
    for (const extension of symbols.extensions) {
      const extendee = withoutDot(extension.extendee);
      const byNumber = fileOfExtension.get(extendee) ?? new Map<number, string>();
      fileOfExtension.set(extendee, byNumber.set(extension.number, file.name));
    }
  }

  function withImports(name: string | undefined): Buffer[] | undefined {
    if (name === undefined || !files.has(name)) return undefined;
    // A set goes on to what is added while it is walked: breadth first, each file once.
    const names = new Set([name]);
    const found: Buffer[] = [];
    for (const each of names) {
      const file = files.get(each);
      if (file === undefined) continue;
      found.push(file.bytes);
      for (const imported of file.imports) names.add(imported);
    }
    return found;
  }

  for (const bytes of filesIn(fileDescriptorSet)) addFile(bytes);

  return {
    fileByName: withImports,
    fileBySymbol: (symbol) => withImports(fileOfSymbol.get(withoutDot(symbol))),
    fileByExtension: (extendee, number) => withImports(fileOfExtension.get(withoutDot(extendee))?.get(number)),
    extensionNumbers(extendee) {
      const name = withoutDot(extendee);
      if (!messages.has(name)) return undefined;
      return [...(fileOfExtension.get(name)?.keys() ?? [])].toSorted((a, b) => a - b);
    },
  };
}

/** The set is one repeated field: `repeated FileDescriptorProto file = 1`. */
function* filesIn(fileDescriptorSet: Uint8Array): Generator<Buffer> {
  const reader = new BinaryReader(fileDescriptorSet);
  while (reader.pos < reader.len) {
    const [field, wireType] = reader.tag();
    if (field === 1 && wireType === WireType.LengthDelimited) yield Buffer.from(reader.bytes());
    else reader.skip(wireType, field);
  }
}

type Symbols = { names: string[]; messages: string[]; extensions: FieldDescriptorProto[] };

function symbolsOf(file: FileDescriptorProto): Symbols {
  const symbols: Symbols = { names: [], messages: [], extensions: [] };
  const scope = file.package;
  for (const service of file.service) {
    const name = join(scope, service.name);
    symbols.names.push(name, ...service.method.map((method) => join(name, method.name)));
  }
  for (const message of file.messageType) addMessage(symbols, scope, message);
  for (const each of file.enumType) addEnum(symbols, scope, each);
  addExtensions(symbols, scope, file.extension);
  return symbols;
}

function addMessage(symbols: Symbols, scope: string, message: DescriptorProto): void {
  const name = join(scope, message.name);
  symbols.messages.push(name);
  symbols.names.push(name, ...[...message.field, ...message.oneofDecl].map((member) => join(name, member.name)));
  for (const nested of message.nestedType) addMessage(symbols, name, nested);
  for (const each of message.enumType) addEnum(symbols, name, each);
  addExtensions(symbols, name, message.extension);
}

/** An enum's values belong to the scope around it, as in C++. */
function addEnum(symbols: Symbols, scope: string, each: EnumDescriptorProto): void {
  symbols.names.push(join(scope, each.name), ...each.value.map((value) => join(scope, value.name)));
}

function addExtensions(symbols: Symbols, scope: string, extensions: readonly FieldDescriptorProto[]): void {
  symbols.names.push(...extensions.map((extension) => join(scope, extension.name)));
  symbols.extensions.push(...extensions);
}

function join(scope: string, name: string): string {
  return scope === "" ? name : `${scope}.${name}`;
}

/** Fully qualified names may be written with a dot in front. */
function withoutDot(name: string): string {
  return name.startsWith(".") ? name.slice(1) : name;
}
