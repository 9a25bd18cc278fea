/*
 * floor.c
 *		The least that libcurl costs: what seam_ik is measured against.
 *
 * Sends the same POST again and again, with the handles, the buffers and the
 * header list kept, and collects the answers without looking into them.  Not
 * part of the extension; src/bench/bench.py builds it and talks to it.
 *
 *		floor first URL BODY HEADER...
 *			one request in this new process, curl_global_init included; prints
 *			the nanoseconds that it took.
 *		floor easy URL BODY HEADER...
 *			reads lines "N": N requests, one after another, on one easy handle;
 *			answers "TOTAL MEDIAN", nanoseconds of the loop and of one request.
 *		floor multi URL BODY HEADER...
 *			reads lines "N CONCURRENCY": N requests, CONCURRENCY in flight, on
 *			one multi handle; answers "TOTAL", the nanoseconds of the loop.
 *
 * Any failure, also an answer that is not a 200 with a body, ends the program
 * with a message and status 1: a floor that fails fast would flatter nobody.
 */
#include <curl/curl.h>
#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

/* An answer is a few hundred bytes; more than this is a mistake in the set-up. */
#define ANSWER_MAX 65536

#define EVENTS_MAX 256

/* One request that may be in flight: its handle and where its answer goes. */
typedef struct Transfer
{
	CURL	   *easy;
	size_t		length;
	char		answer[ANSWER_MAX];
} Transfer;

/* What the multi loop waits for: descriptors in epoll, and libcurl's timeout. */
typedef struct Loop
{
	CURLM	   *multi;
	int			epoll;
	long		timeout_ms;		/* -1: none */
	int			running;
} Loop;

static const char *url;
static const char *body;
static struct curl_slist *headers;


/* Say what went wrong and leave with status 1. */
static void
die(const char *format,...)
{
	va_list		arguments;

	va_start(arguments, format);
	fprintf(stderr, "floor: ");
	vfprintf(stderr, format, arguments);
	fputc('\n', stderr);
	va_end(arguments);
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

/* CURLOPT_WRITEFUNCTION: append to the transfer's buffer. */
static size_t
collect(char *data, size_t size, size_t count, void *argument)
{
	Transfer   *transfer = argument;
	size_t		length = size * count;

	if (length > ANSWER_MAX - transfer->length)
		return 0;
	memcpy(transfer->answer + transfer->length, data, length);
	transfer->length += length;
	return length;
}

/* Make a transfer's handle, with every option that lasts. */
static Transfer *
new_transfer(void)
{
	Transfer   *transfer = calloc(1, sizeof(Transfer));

	if (transfer == NULL || (transfer->easy = curl_easy_init()) == NULL)
		die("out of memory");
	curl_easy_setopt(transfer->easy, CURLOPT_URL, url);
	curl_easy_setopt(transfer->easy, CURLOPT_HTTPHEADER, headers);
	curl_easy_setopt(transfer->easy, CURLOPT_POSTFIELDS, body);
	curl_easy_setopt(transfer->easy, CURLOPT_POSTFIELDSIZE, (long) strlen(body));
	curl_easy_setopt(transfer->easy, CURLOPT_WRITEFUNCTION, collect);
	curl_easy_setopt(transfer->easy, CURLOPT_WRITEDATA, transfer);
	curl_easy_setopt(transfer->easy, CURLOPT_PRIVATE, transfer);
	curl_easy_setopt(transfer->easy, CURLOPT_NOSIGNAL, 1L);
	return transfer;
}

/* Die unless the transfer ended with a 200 and a body; make it ready for the next. */
static void
settle(Transfer *transfer, CURLcode result)
{
	long		status = 0;

	if (result != CURLE_OK)
		die("%s: %s", url, curl_easy_strerror(result));
	curl_easy_getinfo(transfer->easy, CURLINFO_RESPONSE_CODE, &status);
	if (status != 200 || transfer->length == 0)
		die("%s: status %ld, %zu bytes", url, status, transfer->length);
	transfer->length = 0;
}

/* qsort's comparison of two int64_t. */
static int
compare(const void *a, const void *b)
{
	int64_t		x = *(const int64_t *) a;
	int64_t		y = *(const int64_t *) b;

	return (x > y) - (x < y);
}

/* The "first" mode. */
static void
run_first(void)
{
	int64_t		start = now();
	Transfer   *transfer;

	curl_global_init(CURL_GLOBAL_DEFAULT);
	transfer = new_transfer();
	settle(transfer, curl_easy_perform(transfer->easy));
	printf("%lld\n", (long long) (now() - start));
}

/* The "easy" mode. */
static void
run_easy(void)
{
	Transfer   *transfer;
	int			count;

	curl_global_init(CURL_GLOBAL_DEFAULT);
	transfer = new_transfer();
	while (scanf("%d", &count) == 1 && count > 0)
	{
		int64_t    *each = malloc(sizeof(int64_t) * count);
		int64_t		start;
		int64_t		last;

		if (each == NULL)
			die("out of memory");
		start = last = now();
		for (int i = 0; i < count; i++)
		{
			int64_t		end;

			settle(transfer, curl_easy_perform(transfer->easy));
			end = now();
			each[i] = end - last;
			last = end;
		}
		qsort(each, count, sizeof(int64_t), compare);
		printf("%lld %lld\n", (long long) (last - start),
			   (long long) each[count / 2]);
		fflush(stdout);
		free(each);
	}
	curl_easy_cleanup(transfer->easy);
	free(transfer);
}

/* CURLMOPT_SOCKETFUNCTION: keep epoll's set as libcurl wants it. */
static int
watch(CURL *easy, curl_socket_t socket, int what, void *argument, void *known)
{
	Loop	   *loop = argument;
	struct epoll_event event = {.data.fd = socket};
	int			operation = known ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;

	(void) easy;
	if (what == CURL_POLL_REMOVE)
	{
		/* libcurl may have closed it: then epoll has forgotten it already */
		(void) epoll_ctl(loop->epoll, EPOLL_CTL_DEL, socket, NULL);
		return 0;
	}
	if (what & CURL_POLL_IN)
		event.events |= EPOLLIN;
	if (what & CURL_POLL_OUT)
		event.events |= EPOLLOUT;
	if (epoll_ctl(loop->epoll, operation, socket, &event) != 0)
		die("epoll_ctl: %s", strerror(errno));
	curl_multi_assign(loop->multi, socket, loop);
	return 0;
}

/* CURLMOPT_TIMERFUNCTION: remember how long we may sleep. */
static int
set_timeout(CURLM *multi, long timeout_ms, void *argument)
{
	(void) multi;
	((Loop *) argument)->timeout_ms = timeout_ms;
	return 0;
}

/*
 * Keep `concurrency` requests in flight until `count` are done.  `transfers` is
 * an array of at least `concurrency` of them, none of which is in use.
 */
static void
run_batch(Loop *loop, Transfer **transfers, int count, int concurrency)
{
	int			started = 0;
	int			done = 0;

	for (; started < count && started < concurrency; started++)
		curl_multi_add_handle(loop->multi, transfers[started]->easy);

	while (done < count)
	{
		struct epoll_event events[EVENTS_MAX];
		CURLMsg    *message;
		int			queued;
		int			ready;

		ready = epoll_wait(loop->epoll, events, EVENTS_MAX,
						   (int) loop->timeout_ms);
		if (ready < 0 && errno != EINTR)
			die("epoll_wait: %s", strerror(errno));
		for (int i = 0; i < ready; i++)
		{
			int			mask = 0;

			if (events[i].events & EPOLLIN)
				mask |= CURL_CSELECT_IN;
			if (events[i].events & EPOLLOUT)
				mask |= CURL_CSELECT_OUT;
			if (events[i].events & (EPOLLERR | EPOLLHUP))
				mask |= CURL_CSELECT_ERR;
			curl_multi_socket_action(loop->multi, events[i].data.fd, mask,
									 &loop->running);
		}

		/* what was just added starts by a timeout of 0: not only when idle */
		if (ready <= 0 || loop->timeout_ms == 0)
		{
			loop->timeout_ms = -1;
			curl_multi_socket_action(loop->multi, CURL_SOCKET_TIMEOUT, 0,
									 &loop->running);
		}
		while ((message = curl_multi_info_read(loop->multi, &queued)) != NULL)
		{
			Transfer   *transfer;
			CURL	   *easy = message->easy_handle;
			CURLcode	result = message->data.result;

			if (message->msg != CURLMSG_DONE)
				continue;
			curl_easy_getinfo(easy, CURLINFO_PRIVATE, (char **) &transfer);
			settle(transfer, result);
			curl_multi_remove_handle(loop->multi, easy);
			done++;
			if (started < count)
			{
				curl_multi_add_handle(loop->multi, easy);
				started++;
			}
		}
	}
}

/* The "multi" mode. */
static void
run_multi(void)
{
	Loop		loop = {.timeout_ms = -1};
	Transfer  **transfers = NULL;
	int			available = 0;
	int			count;
	int			concurrency;

	curl_global_init(CURL_GLOBAL_DEFAULT);
	loop.multi = curl_multi_init();
	loop.epoll = epoll_create1(EPOLL_CLOEXEC);
	if (loop.multi == NULL || loop.epoll < 0)
		die("no multi handle or no epoll descriptor");
	curl_multi_setopt(loop.multi, CURLMOPT_SOCKETFUNCTION, watch);
	curl_multi_setopt(loop.multi, CURLMOPT_SOCKETDATA, &loop);
	curl_multi_setopt(loop.multi, CURLMOPT_TIMERFUNCTION, set_timeout);
	curl_multi_setopt(loop.multi, CURLMOPT_TIMERDATA, &loop);

	while (scanf("%d %d", &count, &concurrency) == 2 && count > 0 &&
		   concurrency > 0)
	{
		int64_t		start = now();

		if (concurrency > available)
		{
			transfers = realloc(transfers, sizeof(Transfer *) * concurrency);
			if (transfers == NULL)
				die("out of memory");
			for (; available < concurrency; available++)
			{
				transfers[available] = new_transfer();

				/* wait for a connection that proves able to multiplex */
				curl_easy_setopt(transfers[available]->easy, CURLOPT_PIPEWAIT,
								 1L);
			}
			curl_multi_setopt(loop.multi, CURLMOPT_MAXCONNECTS,
							  (long) concurrency);
		}
		run_batch(&loop, transfers, count, concurrency);
		printf("%lld\n", (long long) (now() - start));
		fflush(stdout);
	}

	for (int i = 0; i < available; i++)
	{
		curl_easy_cleanup(transfers[i]->easy);
		free(transfers[i]);
	}
	free(transfers);
	curl_multi_cleanup(loop.multi);
	close(loop.epoll);
}

int
main(int argc, char **argv)
{
	if (argc < 4)
		die("usage: floor first|easy|multi URL BODY HEADER...");
	url = argv[2];
	body = argv[3];
	for (int i = 4; i < argc; i++)
		headers = curl_slist_append(headers, argv[i]);

	if (strcmp(argv[1], "first") == 0)
		run_first();
	else if (strcmp(argv[1], "easy") == 0)
		run_easy();
	else if (strcmp(argv[1], "multi") == 0)
		run_multi();
	else
		die("unknown mode \"%s\"", argv[1]);

	curl_slist_free_all(headers);
	curl_global_cleanup();
	return 0;
}
