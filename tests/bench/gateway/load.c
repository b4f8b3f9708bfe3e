/* The clients of a gateway under measurement, at next to no cost of their own.
 *
 *   load --port P --key K --model M --connections N [--tokens T] [--stream] [--rate R] [--requests N]
 *        [--warm-ms W] [--window-ms D] [--ramp-ms S] [--pids A,B,...]
 *
 * Closed loop: each connection asks again as soon as it is answered. With --rate: one request every 1/R s whatever the
 * answers do, and times count from when a request was due. The run: connections open over --ramp-ms, then everything
 * that happens within the window is counted (--requests N: once, and no window), then what is open may finish. Errors
 * and cut streams are counted over the whole run. Between the window's ends the CPU time of --pids is read from
 * /proc/PID/task/.../schedstat, in nanoseconds. Prints one JSON object.
 *
 * An answer counts when its status is 200, its framing is whole, and it is complete: a stream has T tokens and [DONE],
 * a plain answer has its usage. A token whose text is a number tells when the engine sent it, on this machine's clock.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <getopt.h>
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

enum { READ_BYTES = 262144, EVENTS_AT_ONCE = 512, HEAD_MAX = 8192, SAMPLES_MAX = 1 << 20 };
static const uint64_t FINISH_NS = 30000000000, MS = 1000000;

enum State { CLOSED, CONNECTING, IDLE, HEAD, BODY, SIZE, DATA, DATA_END, TRAILER };

typedef struct {
    int fd, status, tokens, is_done, has_usage, has_error, saw_body, closes;
    enum State state;
    size_t unsent, held;               /* bytes of the request to send; of `text` in use */
    int64_t left;                      /* of the body or chunk */
    uint64_t asked_ns;
    char text[HEAD_MAX];               /* the head so far, then a line that is not whole */
} Connection;

typedef struct { uint32_t *values; size_t count; } Samples;

static struct {
    int port, connections, is_stream, tokens, rate;
    long requests;
    uint64_t warm_ns, window_ns, ramp_ns;
    const char *key, *model, *pids;
} want = {.connections = 1, .tokens = 16, .key = "", .model = "bench-model", .pids = ""};

static struct {
    uint64_t answered, errors, window_requests, window_tokens, usage_shown, tokens;
    Samples first_byte, latency, transit;
    char first_error[256];
} seen;

static int epoll_fd, is_counting, is_stopping, open_requests;
static long asked;
static Connection *connections;
static int *idle, idle_count;
static char *request;
static size_t request_size;

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void note(Samples *samples, uint64_t ns) {
    if (!samples->values && !(samples->values = malloc(SAMPLES_MAX * sizeof *samples->values))) abort();
    if (samples->count < SAMPLES_MAX) samples->values[samples->count++] = ns < UINT32_MAX ? (uint32_t)ns : UINT32_MAX;
}

static int by_value(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

/* Nearest rank, in microseconds; sorts. */
static double percentile(Samples *samples, int percent) {
    if (!samples->count) return 0;
    qsort(samples->values, samples->count, sizeof *samples->values, by_value);
    size_t rank = (samples->count * (size_t)percent + 99) / 100;
    return samples->values[rank ? rank - 1 : 0] / 1000.0;
}

/* Nanoseconds on a processor, of all threads of all processes in --pids. One that ended meanwhile counts nothing. */
static uint64_t cpu_ns(void) {
    uint64_t sum = 0;
    for (const char *at = want.pids; *at; at += strcspn(at, ","), at += *at == ',') {
        char path[300];
        snprintf(path, sizeof path, "/proc/%d/task", atoi(at));
        DIR *folder = opendir(path);
        struct dirent *entry;
        while (folder && (entry = readdir(folder))) {
            char file[600];
            unsigned long long ns = 0;
            snprintf(file, sizeof file, "%s/%s/schedstat", path, entry->d_name);
            FILE *stat = entry->d_name[0] == '.' ? NULL : fopen(file, "r");
            if (stat && fscanf(stat, "%llu", &ns) == 1) sum += ns;
            if (stat) fclose(stat);
        }
        if (folder) closedir(folder);
    }
    return sum;
}

static void watch(Connection *c, int operation, uint32_t events) {
    struct epoll_event event = {.events = events, .data.ptr = c};
    epoll_ctl(epoll_fd, operation, c->fd, &event);
}

static void drop(Connection *c) {
    if (c->state != CLOSED) close(c->fd);
    c->state = CLOSED;
}

static void send_request(Connection *c) {
    ssize_t sent = send(c->fd, request + request_size - c->unsent, c->unsent, MSG_NOSIGNAL);
    if (sent > 0) c->unsent -= (size_t)sent;
    watch(c, EPOLL_CTL_MOD, EPOLLIN | (c->unsent ? EPOLLOUT : 0)); /* a dead connection says so when it is read */
}

static void ask(Connection *c, uint64_t due_ns) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)want.port)};
    int yes = 1;
    asked++;
    open_requests++;
    c->asked_ns = due_ns;
    c->unsent = request_size;
    c->held = 0;
    c->tokens = c->is_done = c->has_usage = c->has_error = c->saw_body = 0;
    if (c->state == IDLE) {
        c->state = HEAD;
        return send_request(c);
    }
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    connect(c->fd, (struct sockaddr *)&address, sizeof address);
    c->state = CONNECTING;
    watch(c, EPOLL_CTL_ADD, EPOLLIN | EPOLLOUT);
}

static void error(Connection *c, const char *format, ...) {
    va_list given;
    c->has_error = 1;
    if (seen.first_error[0]) return;
    va_start(given, format);
    vsnprintf(seen.first_error, sizeof seen.first_error, format, given);
    va_end(given);
    for (char *p = seen.first_error; *p; p++)
        if (*p == '"' || *p == '\\' || (unsigned char)*p < 32) *p = '\'';
}

/* The answer under way is over, well or not; the connection goes on, unless it cannot. */
static void finish(Connection *c, int is_usable) {
    uint64_t now = now_ns();
    open_requests--;
    if (!c->has_error && want.is_stream && (!c->is_done || c->tokens != want.tokens))
        error(c, "a stream ended after %d of %d tokens, [DONE]: %d", c->tokens, want.tokens, c->is_done);
    if (!c->has_error && !want.is_stream && !c->has_usage) error(c, "an answer without usage");
    seen.answered += !c->has_error;
    seen.errors += (uint64_t)c->has_error;
    seen.tokens += (uint64_t)c->tokens;
    if (is_counting && !c->has_error) {
        seen.window_requests++;
        note(&seen.latency, now - c->asked_ns);
    }
    if (is_usable && !c->closes && !c->has_error) c->state = IDLE;
    else drop(c);
    if (want.rate) idle[idle_count++] = (int)(c - connections);
    else if (!is_stopping && !(want.requests && asked >= want.requests)) ask(c, now);
}

static void take_line(Connection *c, const char *line, size_t size, uint64_t now) {
    const char *content;
    if (size < 6 || memcmp(line, "data: ", 6)) return;
    if (size >= 12 && !memcmp(line + 6, "[DONE]", 6)) {
        c->is_done = 1;
        return;
    }
    if (size >= 15 && !memcmp(line + 6, "{\"error\":", 9)) return error(c, "an error event: %.*s", (int)size, line);
    content = memmem(line, size, "\"content\":\"", 11);
    if (content && content[11] != '"') {
        uint64_t sent_ns = strtoull(content + 11, NULL, 10);
        c->tokens++;
        if (!is_counting) return;
        seen.window_tokens++;
        if (sent_ns && sent_ns <= now) note(&seen.transit, now - sent_ns);
    } else if (memmem(line, size, "\"choices\":[]", 12)) {
        seen.usage_shown++;
    }
}

static void take_body(Connection *c, const char *data, size_t size, uint64_t now) {
    if (!size) return;
    if (!c->saw_body && is_counting) note(&seen.first_byte, now - c->asked_ns);
    c->saw_body = 1;
    if (c->status != 200) return error(c, "status %d: %.*s", c->status, (int)(size < 200 ? size : 200), data);
    if (!want.is_stream) {
        if (memmem(data, size, "\"completion_tokens\":", 20)) c->has_usage = 1;
        return;
    }
    while (size) {
        const char *end = memchr(data, '\n', size);
        size_t part = end ? (size_t)(end - data) : size;
        if (c->held + part >= sizeof c->text) return error(c, "a line of an event over %zu bytes", sizeof c->text);
        if (end && !c->held) {
            take_line(c, data, part, now);
        } else {
            memcpy(c->text + c->held, data, part);
            c->held += part;
            if (end) {
                c->text[c->held] = 0;
                take_line(c, c->text, c->held, now);
                c->held = 0;
            }
        }
        part += end != NULL;
        data += part;
        size -= part;
    }
}

static const char *header(Connection *c, const char *name) {
    const char *found = strcasestr(c->text, name);
    return found ? found + strlen(name) + strspn(found + strlen(name), " ") : NULL;
}

/* Takes what it needs of a head; returns how much that was. */
static size_t take_head(Connection *c, const char *data, size_t size) {
    size_t room = HEAD_MAX - 1 - c->held, part = size < room ? size : room, before = c->held;
    const char *end, *value;
    memcpy(c->text + c->held, data, part);
    c->held += part;
    c->text[c->held] = 0;
    end = strstr(c->text, "\r\n\r\n");
    if (!end) {
        if (c->held == HEAD_MAX - 1) error(c, "a head over %d bytes", HEAD_MAX);
        return part;
    }
    part = (size_t)(end + 4 - c->text) - before;
    c->text[end + 2 - c->text] = 0;
    c->status = atoi(c->text + 9);
    value = header(c, "\r\nconnection:");
    c->closes = value && !strncasecmp(value, "close", 5);
    value = header(c, "\r\ncontent-length:");
    c->left = value ? atoll(value) : -1;
    value = header(c, "\r\ntransfer-encoding:");
    c->state = value && !strncasecmp(value, "chunked", 7) ? SIZE : BODY;
    if (c->state == SIZE) c->left = 0;
    else if (c->left < 0) error(c, "neither a length nor chunks");
    c->held = 0;
    return part;
}

/* Returns 1 when the answer is whole (or past repair). */
static int take(Connection *c, const char *data, size_t size, uint64_t now) {
    while (size && !c->has_error) {
        size_t part = 1;
        if (c->state == HEAD) {
            part = take_head(c, data, size);
        } else if (c->state == BODY || c->state == DATA) {
            part = (int64_t)size < c->left ? size : (size_t)c->left;
            take_body(c, data, part, now);
            c->left -= (int64_t)part;
            if (!c->left && c->state == DATA) c->state = DATA_END;
        } else if (*data == '\n') {
            if (c->state == TRAILER) return 1;
            if (c->state == DATA_END) c->state = SIZE;
            else c->state = c->left ? DATA : TRAILER;
        } else if (c->state == SIZE && *data != '\r') {
            int digit = *data <= '9' ? *data - '0' : (*data | 32) - 'a' + 10;
            if (digit < 0 || digit > 15) error(c, "a chunk's size is no number");
            c->left = 16 * c->left + digit;
        }
        data += part;
        size -= part;
        if (c->state == BODY && !c->left) return 1;
    }
    return c->has_error;
}

static void receive(Connection *c) {
    static char data[READ_BYTES];
    ssize_t got = recv(c->fd, data, sizeof data, 0);
    if (got > 0 && c->state == IDLE) return drop(c); /* nobody asked */
    if (got > 0) {
        if (take(c, data, (size_t)got, now_ns())) finish(c, 1);
    } else if (got == 0 || errno != EAGAIN) {
        if (c->state == IDLE) return drop(c);
        error(c, "the connection ended in the middle: %s", got ? strerror(errno) : "closed");
        finish(c, 0);
    }
}

static void handle(Connection *c, uint32_t events) {
    if (c->state == CLOSED) return;
    if (c->state == CONNECTING) {
        int problem = 0;
        socklen_t size = sizeof problem;
        getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &problem, &size);
        if (problem) {
            error(c, "connecting: %s", strerror(problem));
            is_stopping = 1; /* nothing listens there: asking on would only burn time */
            return finish(c, 0);
        }
        c->state = HEAD;
        return send_request(c);
    }
    if ((events & EPOLLOUT) && c->unsent) send_request(c);
    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) receive(c);
}

static void make_request(void) {
    static const char PROMPT[] = "The quick brown fox jumps over the lazy dog and wonders what the dog thinks of it. ";
    char body[2048];
    int size = snprintf(body, sizeof body,
                        "{\"model\":\"%s\",\"messages\":[{\"role\":\"system\",\"content\":\"You are helpful.\"},"
                        "{\"role\":\"user\",\"content\":\"%s%s%s%s%s\"}],\"max_tokens\":%d,\"temperature\":0.7%s}",
                        want.model, PROMPT, PROMPT, PROMPT, PROMPT, PROMPT, want.tokens,
                        want.is_stream ? ",\"stream\":true" : "");
    request = malloc(4096);
    if (!request) abort();
    request_size = (size_t)snprintf(request, 4096,
                                    "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUser-Agent: bench\r\n"
                                    "Accept: */*\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\n"
                                    "Content-Length: %d\r\n\r\n%s",
                                    want.port, want.key, size, body);
}

static int read_options(int count, char **arguments) {
    static const struct option OPTIONS[] = {
        {"port", 1, 0, 'p'}, {"key", 1, 0, 'k'}, {"model", 1, 0, 'm'}, {"connections", 1, 0, 'c'},
        {"tokens", 1, 0, 't'}, {"stream", 0, 0, 's'}, {"rate", 1, 0, 'r'}, {"requests", 1, 0, 'n'}, {"warm-ms", 1, 0, 'w'},
        {"window-ms", 1, 0, 'd'}, {"ramp-ms", 1, 0, 'a'}, {"pids", 1, 0, 'i'}, {0, 0, 0, 0}};
    int option;
    while ((option = getopt_long(count, arguments, "", OPTIONS, NULL)) != -1) {
        switch (option) {
        case 'p': want.port = atoi(optarg); break;
        case 'k': want.key = optarg; break;
        case 'm': want.model = optarg; break;
        case 'c': want.connections = atoi(optarg); break;
        case 't': want.tokens = atoi(optarg); break;
        case 's': want.is_stream = 1; break;
        case 'r': want.rate = atoi(optarg); break;
        case 'n': want.requests = atol(optarg); break;
        case 'w': want.warm_ns = (uint64_t)atoll(optarg) * MS; break;
        case 'd': want.window_ns = (uint64_t)atoll(optarg) * MS; break;
        case 'a': want.ramp_ns = (uint64_t)atoll(optarg) * MS; break;
        case 'i': want.pids = optarg; break;
        default: return 0;
        }
    }
    return want.port > 0 && want.connections > 0;
}

static void print_result(uint64_t window_ns, uint64_t cpu) {
    struct { const char *name; Samples *samples; } all[] = {
        {"first_byte_us", &seen.first_byte}, {"latency_us", &seen.latency}, {"transit_us", &seen.transit}};
    printf("{\"answered\":%llu,\"errors\":%llu,\"unfinished\":%d,\"tokens\":%llu,\"usage_shown\":%llu,"
           "\"window_ns\":%llu,\"window_requests\":%llu,\"window_tokens\":%llu,\"cpu_ns\":%llu",
           (unsigned long long)seen.answered, (unsigned long long)seen.errors, open_requests,
           (unsigned long long)seen.tokens, (unsigned long long)seen.usage_shown, (unsigned long long)window_ns,
           (unsigned long long)seen.window_requests, (unsigned long long)seen.window_tokens, (unsigned long long)cpu);
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        printf(",\"%s_p50\":%.2f,\"%s_p99\":%.2f", all[i].name, percentile(all[i].samples, 50), all[i].name,
               percentile(all[i].samples, 99));
    printf(",\"first_error\":\"%s\"}\n", seen.first_error);
}

int main(int count, char **arguments) {
    static struct epoll_event events[EVENTS_AT_ONCE];
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (!read_options(count, arguments)) return fprintf(stderr, "load: see the head of load.c\n"), 2;
    make_request();
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    connections = calloc((size_t)want.connections, sizeof *connections);
    idle = malloc((size_t)want.connections * sizeof *idle);
    if (!connections || !idle) abort();
    for (int i = want.connections - 1; want.rate && i >= 0; i--) idle[idle_count++] = i;

    uint64_t began = now_ns(), due = began, counting_from = 0, stopped = 0, window = 0, cpu = 0;
    int opened = 0;
    for (;;) {
        uint64_t now = now_ns(), wait_ns = 1 * MS;
        if (!is_counting && !is_stopping && now >= began + want.warm_ns) {
            cpu = cpu_ns();
            counting_from = now_ns();
            is_counting = 1;
        }
        int is_over = want.requests ? asked >= want.requests : is_counting && now >= counting_from + want.window_ns;
        if (!stopped && (is_over || is_stopping)) {
            stopped = now_ns();
            window = counting_from ? stopped - counting_from : 0;
            uint64_t ran = cpu_ns();
            cpu = counting_from && ran > cpu ? ran - cpu : 0; /* less than before: processes have ended */
            is_counting = 0;
            is_stopping = 1;
        }
        if (stopped && (!open_requests || now >= stopped + FINISH_NS)) break;
        if (!is_stopping && want.rate) {
            for (; due <= now && idle_count; due += 1000 * MS / (uint64_t)want.rate)
                ask(&connections[idle[--idle_count]], due);
            wait_ns = due > now ? due - now : 0;
        } else if (!is_stopping) {
            uint64_t since = now - began, wanted = (uint64_t)want.connections;
            if (since < want.ramp_ns) wanted = 1 + wanted * since / want.ramp_ns;
            while ((uint64_t)opened < wanted && opened < want.connections) ask(&connections[opened++], now);
        }
        struct timespec wait = {.tv_nsec = (long)(wait_ns < 1 * MS ? wait_ns : 1 * MS)};
        int ready = epoll_pwait2(epoll_fd, events, EVENTS_AT_ONCE, &wait, NULL);
        for (int i = 0; i < ready; i++) handle(events[i].data.ptr, events[i].events);
    }
    print_result(window, cpu);
    return 0;
}
