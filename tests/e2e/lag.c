// A wall clock that is LAG seconds behind, for a process that is started with LD_PRELOAD. Other clocks go as they do, and
// a wait until an instant of the wall clock ends when it should.
//
//     cc -shared -fPIC -DLAG=60 -o lag.so lag.c

#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <semaphore.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

// No clock but the wall clock counts from 1970.
static const time_t WALL = 1000000000;

int clock_gettime(clockid_t clock, struct timespec *now) {
    int failed = syscall(SYS_clock_gettime, clock, now);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec -= LAG;
    return failed;
}

int gettimeofday(struct timeval *now, void *zone) {
    (void)zone;
    struct timespec precise;
    clock_gettime(CLOCK_REALTIME, &precise);
    now->tv_sec = precise.tv_sec;
    now->tv_usec = precise.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *kept) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (kept) *kept = now.tv_sec;
    return now.tv_sec;
}

static struct timespec real(const struct timespec *deadline) {
    struct timespec moved = *deadline;
    if (moved.tv_sec > WALL) moved.tv_sec += LAG;
    return moved;
}

#define NEXT(name, result, ...) ((result(*)(__VA_ARGS__))dlsym(RTLD_NEXT, name))

int pthread_cond_timedwait(pthread_cond_t *condition, pthread_mutex_t *mutex, const struct timespec *until) {
    struct timespec moved = real(until);
    return NEXT("pthread_cond_timedwait", int, pthread_cond_t *, pthread_mutex_t *, const struct timespec *)(
        condition, mutex, &moved);
}

int pthread_cond_clockwait(
    pthread_cond_t *condition, pthread_mutex_t *mutex, clockid_t clock, const struct timespec *until) {
    struct timespec moved = real(until);
    return NEXT("pthread_cond_clockwait", int, pthread_cond_t *, pthread_mutex_t *, clockid_t, const struct timespec *)(
        condition, mutex, clock, &moved);
}

int sem_timedwait(sem_t *semaphore, const struct timespec *until) {
    struct timespec moved = real(until);
    return NEXT("sem_timedwait", int, sem_t *, const struct timespec *)(semaphore, &moved);
}

int sem_clockwait(sem_t *semaphore, clockid_t clock, const struct timespec *until) {
    struct timespec moved = real(until);
    return NEXT("sem_clockwait", int, sem_t *, clockid_t, const struct timespec *)(semaphore, clock, &moved);
}
