/* A stand-in for vLLM that costs next to nothing, so that a gateway in front of it can be measured.
 *
 *   engine PORT...            one thread, epoll; each port is one worker; loopback only; dies with its parent
 *
 *   POST (any path)           a chat completion as vLLM writes it, streamed when the body says so
 *   GET /pace?first_us=&each_us=   sets how long the first token of a stream takes, and each later one; 0: at once
 *   GET /counts               what was asked and answered since the start, as JSON
 *   GET (any other path)      200, with what routers look for: health, models, metrics
 *
 * A stream is max_tokens chunks of content after one that only names the role, each a chunk of HTTP in a send() of its
 * own, as vLLM's server does. What a client asks for in stream_options it gets: include_usage a last chunk of usage,
 * continuous_usage_stats usage in every chunk. Each token's text is the CLOCK_MONOTONIC nanosecond of its send(), so
 * that the load generator on the same machine can tell how long a chunk was on its way.
 *
 * Streams wait in one list that is sorted by what is due next. All have the same pace, so a stream that goes back into
 * it goes to its end or a step before it: there is no heap because none is needed.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { EVENTS_AT_ONCE = 512, READ_BYTES = 65536, REQUEST_MAX = 16 << 20, CHUNK_MAX = 2048, PROMPT_TOKENS = 96 };
enum { SLOW_READER_NS = 1000000 };

static const char PLAIN_HEAD[] = "HTTP/1.1 200 OK\r\ndate: Sat, 21 Nov 2026 12:00:00 GMT\r\nserver: uvicorn\r\n"
                                 "content-type: application/json\r\ncontent-length: %d\r\n\r\n";
static const char STREAM_HEAD[] = "HTTP/1.1 200 OK\r\ndate: Sat, 21 Nov 2026 12:00:00 GMT\r\nserver: uvicorn\r\n"
                                  "content-type: text/event-stream; charset=utf-8\r\n"
                                  "transfer-encoding: chunked\r\n\r\n";
static const char EVENT_START[] = "data: {\"id\":\"chatcmpl-8d1f0c6a5e7b4c2f9a3d6e8b7c5a4f21\","
                                  "\"object\":\"chat.completion.chunk\",\"created\":1795262400,\"model\":\"%s\",";

typedef struct Connection {
    int fd;
    char *request;                     /* what was read of the request under way */
    size_t held, room;
    char *unsent;                      /* what the socket would not take yet */
    size_t unsent_from, unsent_to, unsent_room;
    int writable_wanted, is_closed;
    int is_streaming, wants_usage, wants_usage_always;
    int tokens, sent_tokens;
    char model[128];
    uint64_t due_ns;
    struct Connection *before, *after; /* in the list of streams */
} Connection;

static int epoll_fd;
static uint64_t first_ns, each_ns;
static struct { uint64_t requests, finished, abandoned, tokens; int64_t streams_open; } counts;
static Connection list = {.before = &list, .after = &list}; /* list.after is due first */

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void *grown(void *memory, size_t size) {
    memory = realloc(memory, size);
    if (!memory) abort();
    return memory;
}

static void list_insert(Connection *c) {
    Connection *place = list.before;
    while (place != &list && place->due_ns > c->due_ns) place = place->before;
    c->before = place;
    c->after = place->after;
    place->after->before = c;
    place->after = c;
}

static void list_remove(Connection *c) {
    c->before->after = c->after;
    c->after->before = c->before;
    c->before = c->after = NULL;
}

/* The struct lives until `forget`, for whoever closes it is in the middle of using it. */
static void close_connection(Connection *c) {
    if (c->is_closed) return;
    if (c->is_streaming) {
        counts.abandoned++;
        counts.streams_open--;
    }
    if (c->before) list_remove(c);
    close(c->fd);
    c->is_closed = 1;
}

static void forget(Connection *c) {
    free(c->request);
    free(c->unsent);
    free(c);
}

static void want_writable(Connection *c, int wanted) {
    struct epoll_event event = {.events = EPOLLIN | (wanted ? EPOLLOUT : 0), .data.ptr = c};
    if (c->writable_wanted == wanted) return;
    epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &event);
    c->writable_wanted = wanted;
}

static void flush_unsent(Connection *c) {
    while (c->unsent_from < c->unsent_to) {
        ssize_t sent = send(c->fd, c->unsent + c->unsent_from, c->unsent_to - c->unsent_from, MSG_NOSIGNAL);
        if (sent < 0 && errno == EAGAIN) return want_writable(c, 1);
        if (sent < 0) return close_connection(c);
        c->unsent_from += (size_t)sent;
    }
    c->unsent_from = c->unsent_to = 0;
    want_writable(c, 0);
}

/* One send(), unless the socket is full. */
static void send_bytes(Connection *c, const char *data, size_t size) {
    if (c->unsent_from == c->unsent_to) {
        ssize_t sent = send(c->fd, data, size, MSG_NOSIGNAL);
        if (sent == (ssize_t)size) return;
        if (sent < 0 && errno != EAGAIN) return close_connection(c);
        if (sent > 0) {
            data += sent;
            size -= (size_t)sent;
        }
    }
    if (c->unsent_to + size > c->unsent_room) {
        c->unsent_room = 2 * (c->unsent_to + size);
        c->unsent = grown(c->unsent, c->unsent_room);
    }
    memcpy(c->unsent + c->unsent_to, data, size);
    c->unsent_to += size;
    want_writable(c, 1);
}

/* Payload grows behind 6 bytes for a chunk's size ("03ab\r\n"), so that head and payload leave in one send(). */
typedef struct { char bytes[CHUNK_MAX]; int size; } Chunk;
enum { CHUNK_HEAD = 6 };

static void put(Chunk *chunk, const char *format, ...) {
    va_list given;
    va_start(given, format);
    char *end = chunk->bytes + CHUNK_HEAD + chunk->size;
    chunk->size += vsnprintf(end, (size_t)(CHUNK_MAX - 16 - chunk->size), format, given);
    va_end(given);
}

static void send_chunk(Connection *c, Chunk *chunk) {
    char head[16];
    snprintf(head, sizeof head, "%04x\r\n", (unsigned)chunk->size);
    memcpy(chunk->bytes, head, CHUNK_HEAD);
    memcpy(chunk->bytes + CHUNK_HEAD + chunk->size, "\r\n", 2);
    send_bytes(c, chunk->bytes, (size_t)(CHUNK_HEAD + chunk->size + 2));
}

static void put_usage(Chunk *chunk, int completed) {
    put(chunk, ",\"usage\":{\"prompt_tokens\":%d,\"total_tokens\":%d,\"completion_tokens\":%d}", PROMPT_TOKENS,
        PROMPT_TOKENS + completed, completed);
}

static void send_role(Connection *c) {
    Chunk chunk = {.size = 0};
    put(&chunk, EVENT_START, c->model);
    put(&chunk, "\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null,"
                "\"finish_reason\":null}]");
    if (c->wants_usage_always) put_usage(&chunk, 0);
    put(&chunk, "}\n\n");
    send_chunk(c, &chunk);
}

static void send_token(Connection *c) {
    Chunk chunk = {.size = 0};
    int is_last = ++c->sent_tokens == c->tokens;
    put(&chunk, EVENT_START, c->model);
    put(&chunk, "\"choices\":[{\"index\":0,\"delta\":{\"content\":\" %llu\"},\"logprobs\":null,\"finish_reason\":%s,%s"
                "\"token_ids\":null}]",
        (unsigned long long)now_ns(), is_last ? "\"length\"" : "null", is_last ? "\"stop_reason\":null," : "");
    if (c->wants_usage_always) put_usage(&chunk, c->sent_tokens);
    put(&chunk, "}\n\n");
    send_chunk(c, &chunk);
    counts.tokens++;
}

static void send_end(Connection *c) {
    Chunk usage = {.size = 0}, done = {.size = 0};
    if (c->wants_usage) {
        put(&usage, EVENT_START, c->model);
        put(&usage, "\"choices\":[]");
        put_usage(&usage, c->sent_tokens);
        put(&usage, "}\n\n");
        send_chunk(c, &usage);
    }
    put(&done, "data: [DONE]\n\n");
    send_chunk(c, &done);
    send_bytes(c, "0\r\n\r\n", 5);
    if (c->is_closed) return;
    c->is_streaming = 0;
    counts.streams_open--;
    counts.finished++;
}

/* The next token; of an unpaced stream as many as the socket takes. */
static void continue_stream(Connection *c) {
    if (c->sent_tokens == 0) send_role(c);
    do {
        if (!c->is_closed) send_token(c);
        if (c->is_closed) return;
        if (c->sent_tokens == c->tokens) return send_end(c);
    } while (!each_ns && c->unsent_from == c->unsent_to);
    c->due_ns += each_ns;
    list_insert(c);
}

static void begin_stream(Connection *c) {
    send_bytes(c, STREAM_HEAD, sizeof STREAM_HEAD - 1);
    if (c->is_closed) return;
    c->is_streaming = 1;
    c->sent_tokens = 0;
    counts.streams_open++;
    c->due_ns = now_ns() + first_ns;
    list_insert(c);
}

static void send_whole(Connection *c, const char *body, int size) {
    char answer[4096];
    int head = snprintf(answer, sizeof answer, PLAIN_HEAD, size);
    memcpy(answer + head, body, (size_t)size);
    send_bytes(c, answer, (size_t)(head + size));
}

static void answer_plain(Connection *c) {
    char body[2048];
    int size = snprintf(
        body, sizeof body,
        "{\"id\":\"chatcmpl-8d1f0c6a5e7b4c2f9a3d6e8b7c5a4f21\",\"object\":\"chat.completion\",\"created\":1795262400,"
        "\"model\":\"%s\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\" one two "
        "three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen\",\"refusal\":null,"
        "\"annotations\":null,\"audio\":null,\"function_call\":null,\"tool_calls\":[],\"reasoning\":null},"
        "\"logprobs\":null,\"finish_reason\":\"length\",\"stop_reason\":null,\"token_ids\":null}],\"service_tier\":"
        "null,\"system_fingerprint\":null,\"usage\":{\"prompt_tokens\":%d,\"total_tokens\":%d,\"completion_tokens\":%d,"
        "\"prompt_tokens_details\":null},\"prompt_logprobs\":null,\"prompt_token_ids\":null,\"kv_transfer_params\":"
        "null}",
        c->model, PROMPT_TOKENS, PROMPT_TOKENS + c->tokens, c->tokens);
    send_whole(c, body, size);
    counts.tokens += (uint64_t)c->tokens;
    counts.finished++;
}

/* Where the value of a top-level field begins; found by its text, since no prompt of ours contains one. */
static const char *field(const char *body, size_t size, const char *name) {
    const char *found = memmem(body, size, name, strlen(name)), *end = body + size;
    if (!found) return NULL;
    for (found += strlen(name); found < end && (*found == ':' || *found == ' '); found++) continue;
    return found < end ? found : NULL;
}

static int is_true(const char *body, size_t size, const char *name) {
    const char *value = field(body, size, name);
    return value && *value == 't';
}

static void answer_post(Connection *c, const char *body, size_t size) {
    const char *tokens = field(body, size, "\"max_tokens\""), *model = field(body, size, "\"model\"");
    counts.requests++;
    c->tokens = tokens ? atoi(tokens) : 16;
    if (c->tokens < 1) c->tokens = 1;
    snprintf(c->model, sizeof c->model, "%.*s", model ? (int)strcspn(model + 1, "\"") : 0, model ? model + 1 : "");
    c->wants_usage = is_true(body, size, "\"include_usage\"");
    c->wants_usage_always = is_true(body, size, "\"continuous_usage_stats\"");
    if (is_true(body, size, "\"stream\"")) begin_stream(c);
    else answer_plain(c);
}

static void answer_get(Connection *c, const char *path) {
    char body[512];
    const char *first = strstr(path, "first_us="), *each = strstr(path, "each_us=");
    if (!strncmp(path, "/pace?", 6) && first && each) {
        first_ns = strtoull(first + 9, NULL, 10) * 1000;
        each_ns = strtoull(each + 8, NULL, 10) * 1000;
    }
    if (!strncmp(path, "/counts", 7))
        snprintf(body, sizeof body,
                 "{\"requests\":%llu,\"finished\":%llu,\"abandoned\":%llu,\"tokens\":%llu,\"streams_open\":%lld}",
                 (unsigned long long)counts.requests, (unsigned long long)counts.finished,
                 (unsigned long long)counts.abandoned, (unsigned long long)counts.tokens,
                 (long long)counts.streams_open);
    else if (!strncmp(path, "/v1/models", 10))
        snprintf(body, sizeof body, "{\"object\":\"list\",\"data\":[{\"id\":\"bench-model\",\"object\":\"model\","
                                    "\"created\":1795262400,\"owned_by\":\"vllm\",\"max_model_len\":131072}]}");
    else
        snprintf(body, sizeof body, "{}");
    send_whole(c, body, (int)strlen(body));
}

/* How many bytes the first request in the buffer has, answered by then; 0: it is not whole yet. */
static size_t answer_next(Connection *c) {
    char *end = memmem(c->request, c->held, "\r\n\r\n", 4);
    size_t head, length = 0;
    if (!end) return 0;
    head = (size_t)(end - c->request) + 4;
    *end = 0; /* the head becomes a string */
    char *announced = strcasestr(c->request, "\r\ncontent-length:");
    if (announced) length = strtoull(announced + 17, NULL, 10);
    *end = '\r';
    if (c->held < head + length) return 0;
    if (!strncmp(c->request, "POST ", 5)) answer_post(c, c->request + head, length);
    else answer_get(c, c->request + 4);
    return head + length;
}

static void read_requests(Connection *c) {
    if (c->room - c->held < READ_BYTES) {
        c->room = c->held + 2 * READ_BYTES;
        c->request = grown(c->request, c->room);
    }
    ssize_t got = recv(c->fd, c->request + c->held, READ_BYTES, 0);
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0 || c->held > REQUEST_MAX) return close_connection(c);
    c->held += (size_t)got;
    while (!c->is_closed && !c->is_streaming) {
        size_t used = answer_next(c);
        if (!used) return;
        c->held -= used;
        memmove(c->request, c->request + used, c->held);
    }
}

static void accept_all(int listener) {
    int fd, yes = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
        Connection *c = calloc(1, sizeof *c);
        if (!c) abort();
        c->fd = fd;
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
        epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event);
    }
}

static void send_what_is_due(void) {
    uint64_t now = now_ns();
    for (int round = 0; round < EVENTS_AT_ONCE && list.after != &list && list.after->due_ns <= now; round++) {
        Connection *c = list.after;
        list_remove(c);
        if (c->unsent_from == c->unsent_to) {
            continue_stream(c);
            if (c->is_closed) forget(c);
        } else { /* its reader is slow: look again later */
            c->due_ns = now + SLOW_READER_NS;
            list_insert(c);
        }
    }
}

static void listen_on(int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int yes = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) || listen(fd, 4096)) {
        fprintf(stderr, "engine: port %d: %s\n", port, strerror(errno));
        exit(1);
    }
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = ((uint64_t)fd << 1) | 1}; /* odd: no pointer is */
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event);
}

int main(int count, char **arguments) {
    static struct epoll_event events[EVENTS_AT_ONCE];
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    for (int i = 1; i < count; i++) listen_on(atoi(arguments[i]));
    for (;;) {
        uint64_t now = now_ns(), wait_ns = 1000000000;
        if (list.after != &list) wait_ns = list.after->due_ns > now ? list.after->due_ns - now : 0;
        if (wait_ns > 1000000000) wait_ns = 1000000000;
        struct timespec wait = {.tv_sec = (time_t)(wait_ns / 1000000000), .tv_nsec = (long)(wait_ns % 1000000000)};
        int ready = epoll_pwait2(epoll_fd, events, EVENTS_AT_ONCE, &wait, NULL);
        for (int i = 0; i < ready; i++) {
            if (events[i].data.u64 & 1) {
                accept_all((int)(events[i].data.u64 >> 1));
                continue;
            }
            Connection *c = events[i].data.ptr;
            if (!c->is_closed && (events[i].events & EPOLLOUT)) flush_unsent(c);
            if (!c->is_closed && (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))) read_requests(c);
            if (c->is_closed) forget(c); /* epoll names a connection once a round, and a closed one never again */
        }
        send_what_is_due();
    }
}
