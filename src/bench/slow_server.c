/*
 * slow_server.c
 *		An HTTP/1.1 server on loopback that gives every request an answer after
 *		the same delay, without using the processor while it waits.
 *
 *		slow_server DELAY_MS ANSWER_FILE [LOG_FILE]
 *
 * Prints its port and serves until it is killed.  nginx has no delay of its
 * own, so the batch benchmark asks this one, for https and HTTP/2 with nginx in
 * front.  Requests need a Content-Length.  The answer is the file's, but with
 * the request's user_identity_id, if there is one, and with an instant_key_id
 * that no other answer has.  An identity that begins with 88888888 gets it only
 * after 8 seconds.  Each request is noted in the log file: its identity, and
 * when it had come, in microseconds since 1970.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define REQUEST_MAX 16384		/* the benchmark's are a few hundred bytes */
#define ANSWER_MAX 16384
#define CONNECTIONS_MAX 4096	/* descriptors above this are refused */
#define EVENTS_MAX 256

#define UUID_LENGTH 36

/* Whose requests are answered late, and how late, in nanoseconds. */
#define LATE_IDENTITY "88888888"
#define LATE_DELAY (INT64_C(8) * 1000000000)

/* What has been read of the request of a connection, indexed by descriptor. */
typedef struct Connection
{
	uint32_t	generation;		/* which use of this descriptor it is */
	size_t		length;
	char		request[REQUEST_MAX + 1];
} Connection;

/* An answer that is due. */
typedef struct Due
{
	int64_t		at;
	int			descriptor;
	uint32_t	generation;		/* of the connection when it asked */
	char		identity[UUID_LENGTH];
} Due;

#define QUEUE_SIZE (4 * CONNECTIONS_MAX)

/*
 * Those of a queue wait equally long, so it is a schedule.  At most one request
 * of a connection waits, but closed ones stay queued.
 */
typedef struct Queue
{
	int64_t		delay;			/* nanoseconds */
	unsigned int head;
	unsigned int tail;
	Due			due[QUEUE_SIZE];
} Queue;

static Connection *connections[CONNECTIONS_MAX];

static Queue usual;
static Queue late = {.delay = LATE_DELAY};

static char answer[ANSWER_MAX];
static size_t answer_length;
static char *answer_identity;	/* where in it, or NULL */
static char *answer_key;
static char *answer_date;
static uint64_t answers;
static int	timer;
static FILE *log_file;			/* or NULL */


/* Say what went wrong, with errno, and leave with status 1. */
static void
die(const char *what)
{
	fprintf(stderr, "slow_server: %s: %s\n", what, strerror(errno));
	exit(1);
}

/* The monotonic clock in nanoseconds. */
static int64_t
now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t) t.tv_sec * 1000000000 + t.tv_nsec;
}

/* Where the uuid of a field of a JSON text is, or NULL. */
static char *
find_uuid(char *text, const char *field)
{
	char		pattern[64];
	char	   *found;

	snprintf(pattern, sizeof(pattern), "\"%s\":\"", field);
	found = strstr(text, pattern);
	if (found == NULL || strlen(found) < strlen(pattern) + UUID_LENGTH)
		return NULL;
	return found + strlen(pattern);
}

/* Read the body from a file and put the head of the answer before it. */
static void
load_answer(const char *path)
{
	char		body[ANSWER_MAX / 2];
	FILE	   *file = fopen(path, "r");
	size_t		length;

	if (file == NULL)
		die(path);
	length = fread(body, 1, sizeof(body), file);
	fclose(file);
	answer_length = snprintf(answer, sizeof(answer),
							 "HTTP/1.1 200 OK\r\n"
							 "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"	/* see put_date() */
							 "Content-Type: application/json\r\n"
							 "Content-Length: %zu\r\n"
							 "seam-request-id: 0f0e0d0c-0b0a-4908-8706-050403020100\r\n"
							 "\r\n%.*s", length, (int) length, body);
	answer_identity = find_uuid(answer, "user_identity_id");
	answer_key = find_uuid(answer, "instant_key_id");
	answer_date = strstr(answer, "Date: ") + strlen("Date: ");
}

/* Put the time into the answer, once a second. */
static void
put_date(void)
{
	static time_t told;
	time_t		second = time(NULL);
	char		date[64];

	if (second == told)
		return;
	told = second;
	memcpy(answer_date, date, strftime(date, sizeof(date), "%a, %d %b %Y %H:%M:%S GMT",
									   gmtime(&second)));
}

/*
 * The size of the whole request at the start of a connection's buffer, or 0 if
 * it has not all come.
 */
static size_t
request_size(Connection *connection)
{
	char	   *end;
	char	   *field;
	size_t		size;

	connection->request[connection->length] = '\0';
	end = strstr(connection->request, "\r\n\r\n");
	if (end == NULL)
		return 0;
	size = end + 4 - connection->request;
	field = strcasestr(connection->request, "\r\ncontent-length:");
	if (field != NULL && field < end)
		size += strtoul(field + strlen("\r\ncontent-length:"), NULL, 10);
	return size <= connection->length ? size : 0;
}

/* Forget a connection; answers that it still waits for are dropped when due. */
static void
drop(int descriptor)
{
	connections[descriptor]->generation++;
	connections[descriptor]->length = 0;
	close(descriptor);
}

/* Set the timer to the moment when the first answer is due. */
static void
arm(void)
{
	struct itimerspec when = {0};
	int64_t		at = INT64_MAX;

	if (usual.head != usual.tail)
		at = usual.due[usual.head].at;
	if (late.head != late.tail && late.due[late.head].at < at)
		at = late.due[late.head].at;
	if (at != INT64_MAX)
	{
		when.it_value.tv_sec = at / 1000000000;
		when.it_value.tv_nsec = at % 1000000000;
	}
	if (timerfd_settime(timer, TFD_TIMER_ABSTIME, &when, NULL) != 0)
		die("timerfd_settime");
}

/* Answer a request, if its connection is still there. */
static void
send_answer(const Due *due)
{
	char		number[13];

	if (connections[due->descriptor]->generation != due->generation)
		return;
	put_date();
	if (answer_identity && due->identity[0])
		memcpy(answer_identity, due->identity, UUID_LENGTH);
	if (answer_key)
	{
		snprintf(number, sizeof(number), "%012llx", (unsigned long long) ++answers);
		memcpy(answer_key + UUID_LENGTH - 12, number, 12);
	}

	/* so small an answer always fits an idle socket's buffer */
	if (send(due->descriptor, answer, answer_length, MSG_NOSIGNAL) < 0)
		drop(due->descriptor);
}

/* Send every answer of a queue that is due by now. */
static void
send_due(Queue *queue)
{
	int64_t		moment = now();

	while (queue->head != queue->tail && queue->due[queue->head].at <= moment)
	{
		send_answer(&queue->due[queue->head]);
		queue->head = (queue->head + 1) % QUEUE_SIZE;
	}
}

/* Note that a request has come. */
static void
note_request(const Due *due)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	fprintf(log_file, "%.*s %lld\n", UUID_LENGTH, due->identity,
			(long long) t.tv_sec * 1000000 + t.tv_nsec / 1000);
	fflush(log_file);
}

/* Answer a whole request now, or have that done when it is due. */
static void
schedule(int descriptor, size_t size)
{
	Connection *connection = connections[descriptor];
	Due			due = {.descriptor = descriptor,.generation = connection->generation};
	char		after = connection->request[size];
	char	   *identity;
	Queue	   *queue = &usual;

	connection->request[size] = '\0';
	identity = find_uuid(connection->request, "user_identity_id");
	if (identity != NULL)
	{
		memcpy(due.identity, identity, UUID_LENGTH);
		if (strncmp(identity, LATE_IDENTITY, strlen(LATE_IDENTITY)) == 0)
			queue = &late;
	}
	connection->request[size] = after;
	if (log_file)
		note_request(&due);
	if (queue->delay == 0)
	{
		send_answer(&due);
		return;
	}
	due.at = now() + queue->delay;
	queue->due[queue->tail] = due;
	queue->tail = (queue->tail + 1) % QUEUE_SIZE;
	if (queue->tail == (queue->head + 1) % QUEUE_SIZE)
		arm();
}

/* Read what came on a connection and schedule the answer of a whole request. */
static void
read_request(int descriptor)
{
	Connection *connection = connections[descriptor];
	ssize_t		got;
	size_t		size;

	got = recv(descriptor, connection->request + connection->length,
			   REQUEST_MAX - connection->length, 0);
	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (got <= 0)
	{
		drop(descriptor);
		return;
	}
	connection->length += got;

	while ((size = request_size(connection)) > 0)
	{
		uint32_t	generation = connection->generation;

		schedule(descriptor, size);
		if (connection->generation != generation)
			return;
		connection->length -= size;
		memmove(connection->request, connection->request + size,
				connection->length);
	}
	if (connection->length == REQUEST_MAX)
		drop(descriptor);
}

/* Take every connection that waits to be accepted. */
static void
accept_all(int listener, int epoll)
{
	int			descriptor;

	while ((descriptor = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0)
	{
		struct epoll_event event = {.events = EPOLLIN, .data.fd = descriptor};
		int			yes = 1;

		if (descriptor >= CONNECTIONS_MAX)
		{
			close(descriptor);
			continue;
		}
		if (connections[descriptor] == NULL &&
			(connections[descriptor] = calloc(1, sizeof(Connection))) == NULL)
			die("calloc");
		setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes));
		if (epoll_ctl(epoll, EPOLL_CTL_ADD, descriptor, &event) != 0)
			die("epoll_ctl");
	}
}

int
main(int argc, char **argv)
{
	struct sockaddr_in address = {.sin_family = AF_INET};
	socklen_t	length = sizeof(address);
	struct epoll_event event = {.events = EPOLLIN};
	struct rlimit files;
	int			listener;
	int			epoll;

	if (argc != 3 && argc != 4)
	{
		fprintf(stderr, "usage: slow_server DELAY_MS ANSWER_FILE [LOG_FILE]\n");
		return 1;
	}
	usual.delay = strtol(argv[1], NULL, 10) * INT64_C(1000000);
	load_answer(argv[2]);
	if (argc == 4 && (log_file = fopen(argv[3], "w")) == NULL)
		die(argv[3]);

	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);

	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	epoll = epoll_create1(0);
	timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
	if (listener < 0 || epoll < 0 || timer < 0 ||
		bind(listener, (struct sockaddr *) &address, sizeof(address)) != 0 ||
		listen(listener, CONNECTIONS_MAX) != 0 ||
		getsockname(listener, (struct sockaddr *) &address, &length) != 0)
		die("set-up");
	event.data.fd = listener;
	if (epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event) != 0)
		die("epoll_ctl");
	event.data.fd = timer;
	if (epoll_ctl(epoll, EPOLL_CTL_ADD, timer, &event) != 0)
		die("epoll_ctl");
	printf("%d\n", ntohs(address.sin_port));
	fflush(stdout);

	for (;;)
	{
		struct epoll_event events[EVENTS_MAX];
		int			ready = epoll_wait(epoll, events, EVENTS_MAX, -1);

		if (ready < 0 && errno != EINTR)
			die("epoll_wait");
		for (int i = 0; i < ready; i++)
		{
			if (events[i].data.fd == listener)
				accept_all(listener, epoll);
			else if (events[i].data.fd == timer)
			{
				send_due(&usual);
				send_due(&late);
				arm();
			}
			else
				read_request(events[i].data.fd);
		}
	}
}
