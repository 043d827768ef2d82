/* The first process of a pod: holds its namespaces, reaps what is left to it, ends when told to. */
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static void stop(int number)
{
    (void)number;
    _exit(EXIT_SUCCESS);
}

static void reap(int number)
{
    (void)number;
    while (waitpid(-1, NULL, WNOHANG) > 0) {
    }
}

static int on(int number, void (*action)(int), int flags)
{
    struct sigaction wanted = {.sa_handler = action, .sa_flags = flags};

    return sigaction(number, &wanted, NULL);
}

int main(void)
{
    if (on(SIGINT, stop, 0) || on(SIGTERM, stop, 0) || on(SIGCHLD, reap, SA_NOCLDSTOP))
        return EXIT_FAILURE;
    for (;;)
        pause();
}
