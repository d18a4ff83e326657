/*
 * base/inject.c
 *	  Named points at which a test can stop the process, in libraries built for that
 *	  with INJECT=1.
 *
 * The file gpu_orch.inject in the data directory arms one point: "POINT ACTION".
 * Whoever reaches the point first takes the file away, so it fires once, also where
 * the server restarts because of it. Nothing here is in a release.
 */
#include "postgres.h"

#include "base/inject.h"

#ifdef GPU_ORCH_INJECT

#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include "miscadmin.h"

#define ARMED "gpu_orch.inject"
#define PAUSED "gpu_orch.paused"

/* Read what is armed; false if that is not this point. */
static bool
read_armed(const char *point, char *action)
{
	char armed[64];
	FILE *file = fopen(ARMED, "r");
	bool ours;

	if (file == NULL)
		return false;
	ours = fscanf(file, "%63s %15s", armed, action) == 2 && strcmp(armed, point) == 0;
	fclose(file);
	return ours;
}

/* Wait until the test takes the file away. */
static void
pause_here(void)
{
	FILE *file = fopen(PAUSED, "w");
	struct stat is_there;

	if (file == NULL)
		elog(ERROR, "injected: could not create \"%s\"", PAUSED);
	fclose(file);
	while (stat(PAUSED, &is_there) == 0)
		pg_usleep(1000);
}

/*
 * A point that a test may have armed: error raises one, kill and term send this
 * process a signal, pause waits.
 */
void
inject(const char *point)
{
	char action[16];

	if (!read_armed(point, action) || unlink(ARMED) != 0)
		return;
	elog(LOG, "injected: %s at %s", action, point);
	if (strcmp(action, "error") == 0)
		elog(ERROR, "injected at %s", point);
	else if (strcmp(action, "kill") == 0)
		kill(MyProcPid, SIGKILL);
	else if (strcmp(action, "term") == 0)
		kill(MyProcPid, SIGTERM);
	else
		pause_here();
}

#endif
