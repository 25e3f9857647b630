"""The message shapes of the protocol as `TypedDict`s for annotations; at run time each of them is a plain dict.

A shape has the members of 2025-11-25 and of 2026-07-28 and requires those that both require. The rest may be left out,
such as the `resultType`, `ttlMs` and `cacheScope` that the server adds by itself.
"""

# No postponed annotations, so that on Python 3.9 too a class of another module can extend these; and since
# `NotRequired` is younger than 3.9, required members are in a base of their own.

from typing import Any, Literal, TypedDict, Union

JSONObject = dict[str, Any]
RequestId = Union[str, int]
Role = Literal["user", "assistant"]


class _Meta(TypedDict, total=False):
    _meta: JSONObject


class _ResultType(_Meta, total=False):
    resultType: str


class _Cacheable(_ResultType, total=False):
    ttlMs: int
    cacheScope: Literal["public", "private"]


class Annotations(TypedDict, total=False):
    """The audience and the importance (0 to 1) of content. Spec: FEAT-047"""

    audience: list[Role]
    priority: float
    lastModified: str


class _Src(TypedDict):
    src: str


class Icon(_Src, total=False):
    """An image that stands for something, at an https: or data: URI; sizes such as "48x48"."""

    mimeType: str
    sizes: list[str]
    theme: Literal["light", "dark"]


class _Named(TypedDict):
    name: str


class _Titled(_Named, total=False):
    title: str
    description: str


class _Shown(_Titled, _Meta, total=False):
    icons: list[Icon]


class _Version(TypedDict):
    version: str


class Implementation(_Titled, _Version, total=False):
    """The name and version of a client or server: for display, never to decide anything by. Spec: BASE-047"""

    icons: list[Icon]
    websiteUrl: str


class _Annotated(_Meta, total=False):
    annotations: Annotations


class TextContent(_Annotated):
    """A text block."""

    type: Literal["text"]
    text: str


class ImageContent(_Annotated):
    """An image, in base64."""

    type: Literal["image"]
    data: str
    mimeType: str


class AudioContent(_Annotated):
    """Audio, in base64."""

    type: Literal["audio"]
    data: str
    mimeType: str


class _Uri(TypedDict):
    uri: str


class _Contents(_Uri, _Meta, total=False):
    mimeType: str


class TextResourceContents(_Contents):
    """The contents of a resource as text."""

    text: str


class BlobResourceContents(_Contents):
    """The contents of a resource in base64."""

    blob: str


class EmbeddedResource(_Annotated):
    """A resource with its contents, inside a result or message."""

    type: Literal["resource"]
    resource: Union[TextResourceContents, BlobResourceContents]


class Resource(_Shown, _Uri, total=False):
    """An entry of `resources/list`; the size is in bytes. Spec: FEAT-058"""

    mimeType: str
    size: int
    annotations: Annotations


class ResourceLink(Resource):
    """A resource that can be read at its URI, inside a result or message."""

    type: Literal["resource_link"]


ContentBlock = Union[TextContent, ImageContent, AudioContent, ResourceLink, EmbeddedResource]


class ToolAnnotations(TypedDict, total=False):
    """Hints about what a tool does, which a client must not rely on. Spec: FEAT-013"""

    title: str
    readOnlyHint: bool
    destructiveHint: bool
    idempotentHint: bool
    openWorldHint: bool


class _InputSchema(TypedDict):
    inputSchema: JSONObject


class Tool(_Shown, _InputSchema, total=False):
    """An entry of `tools/list`; `execution` is of 2025-11-25 only. Spec: FEAT-002, FEAT-014"""

    outputSchema: JSONObject
    annotations: ToolAnnotations
    execution: JSONObject


class _ToolContent(TypedDict):
    content: list[ContentBlock]


class CallToolResult(_ResultType, _ToolContent, total=False):
    """The result of `tools/call`. Spec: FEAT-021"""

    structuredContent: Any
    isError: bool


class _UriTemplate(TypedDict):
    uriTemplate: str


class ResourceTemplate(_Shown, _UriTemplate, total=False):
    """An entry of `resources/templates/list`. Spec: FEAT-070"""

    mimeType: str
    annotations: Annotations


class ReadResourceResult(_Cacheable):
    """The result of `resources/read`. Spec: FEAT-061"""

    contents: list[Union[TextResourceContents, BlobResourceContents]]


class PromptArgument(_Titled, total=False):
    """An argument of a prompt; its value is always a string."""

    required: bool


class Prompt(_Shown, total=False):
    """An entry of `prompts/list`. Spec: FEAT-082"""

    arguments: list[PromptArgument]


class PromptMessage(TypedDict):
    """One message of a prompt."""

    role: Role
    content: ContentBlock


class _Messages(TypedDict):
    messages: list[PromptMessage]


class GetPromptResult(_ResultType, _Messages, total=False):
    """The result of `prompts/get`. Spec: FEAT-085"""

    description: str


class _Action(TypedDict):
    action: Literal["accept", "decline", "cancel"]


class ElicitResult(_Meta, _Action, total=False):
    """The answer of a person to an elicitation; it has content only when they accepted a form. Spec: FEAT-194"""

    content: dict[str, Union[str, int, float, bool, list[str]]]


class ToolUseContent(_Meta):
    """A request of a model to call a tool."""

    type: Literal["tool_use"]
    id: str
    name: str
    input: JSONObject


class _ToolUse(_ToolContent):
    type: Literal["tool_result"]
    toolUseId: str


class ToolResultContent(_ToolUse, _Meta, total=False):
    """The result of a tool, for the model that asked for the call."""

    structuredContent: Any
    isError: bool


SamplingMessageContentBlock = Union[TextContent, ImageContent, AudioContent, ToolUseContent, ToolResultContent]


class SamplingMessage(_Meta):
    """One message of a conversation with a model."""

    role: Role
    content: Union[SamplingMessageContentBlock, list[SamplingMessageContentBlock]]


class _Model(TypedDict):
    model: str


class CreateMessageResult(SamplingMessage, _Model, total=False):
    """A message that a model generated; `stopReason` is often "endTurn", "maxTokens" or "toolUse".

    Spec: 26:client/sampling
    """

    stopReason: str


class Root(_Uri, _Meta, total=False):
    """A folder that the client works in, at a file: URI."""

    name: str


class ClientCapabilities(TypedDict, total=False):
    """The capabilities of a client; a member that is present, even empty, means yes. Spec: BASE-177"""

    elicitation: JSONObject
    sampling: JSONObject
    roots: JSONObject
    tasks: JSONObject
    experimental: dict[str, JSONObject]
    extensions: dict[str, JSONObject]


class ServerCapabilities(TypedDict, total=False):
    """The capabilities of a server; a member that is present, even empty, means yes. Spec: BASE-080"""

    tools: JSONObject
    resources: JSONObject
    prompts: JSONObject
    completions: JSONObject
    logging: JSONObject
    tasks: JSONObject
    experimental: dict[str, JSONObject]
    extensions: dict[str, JSONObject]


class _JSONRPC(TypedDict):
    jsonrpc: Literal["2.0"]
    method: str


class JSONRPCNotification(_JSONRPC, total=False):
    """A notification: a message without an answer."""

    params: JSONObject


class JSONRPCRequest(JSONRPCNotification):
    """A request: a message with one answer."""

    id: RequestId


class JSONRPCResultResponse(TypedDict):
    """The response to a request that succeeded."""

    jsonrpc: Literal["2.0"]
    id: RequestId
    result: JSONObject


class _ErrorCode(TypedDict):
    code: int
    message: str


class Error(_ErrorCode, total=False):
    """The code and message of a failed request."""

    data: Any


class _ErrorResponse(TypedDict):
    jsonrpc: Literal["2.0"]
    error: Error


class JSONRPCErrorResponse(_ErrorResponse, total=False):
    """The response to a request that failed; without an id when none could be read."""

    id: RequestId


JSONRPCMessage = Union[JSONRPCRequest, JSONRPCNotification, JSONRPCResultResponse, JSONRPCErrorResponse]
