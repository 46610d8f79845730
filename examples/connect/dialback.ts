// Describes the agent's services for Connect, without a .proto file and without generated code.
//
// dialback's messages are plain JSON. `google.protobuf.Value` is the message whose JSON form is any bare value.

import { create, createFileRegistry, fromJson, toJson } from "@bufbuild/protobuf";
import type { JsonValue } from "@bufbuild/protobuf";
import type { GenService } from "@bufbuild/protobuf/codegenv2";
import { FileDescriptorProtoSchema, ValueSchema, file_google_protobuf_struct } from "@bufbuild/protobuf/wkt";
import type { Value } from "@bufbuild/protobuf/wkt";

type Kind = "unary" | "server_streaming";

/** The type of a service for a typed client: its methods by their local names. */
type ServiceOf<Methods extends Record<string, Kind>> = GenService<{
  [Name in keyof Methods & string as Uncapitalize<Name>]: {
    methodKind: Methods[Name];
    input: typeof ValueSchema;
    output: typeof ValueSchema;
  };
}>;

/** Describes a service of a dialback agent; each message is one JSON value. */
export function service<const Methods extends Record<string, Kind>>(name: string, methods: Methods): ServiceOf<Methods> {
  const value = ".google.protobuf.Value";
  const file = create(FileDescriptorProtoSchema, {
    name: `${name}.proto`,
    syntax: "proto3",
    dependency: ["google/protobuf/struct.proto"],
    service: [{
      name,
      method: Object.entries(methods).map(([method, kind]) => ({
        name: method,
        inputType: value,
        outputType: value,
        serverStreaming: kind === "server_streaming",
      })),
    }],
  });
  const known = file_google_protobuf_struct.proto;
  const found = createFileRegistry(file, () => known).getService(name);
  if (found === undefined) throw new Error(`the description of ${name} has no service`);
  return found as ServiceOf<Methods>;
}

/** Wraps a JSON value in a message. */
export const message = (json: JsonValue): Value => fromJson(ValueSchema, json);

/** Returns the JSON value of a message. */
export const json = (message: Value): JsonValue => toJson(ValueSchema, message);
