/*
 * store/alert.c
 *	  What somebody should look at: all access to alert.
 *
 * An alert is raised while its condition holds and cleared when it no longer does;
 * the row stays as the record of both. What the alerts are, how grave, and what to
 * do about each is a view, alert_rule. Tells nobody: that is for whoever reads
 * the view.
 */
#include "postgres.h"

#include "base/guc.h"
#include "store/alert.h"

/*
 * Raise the alert for a subject, or clear it where detail is NULL. Writes only what
 * differs from before, so that it can be called in each cycle. An alert that a transaction
 * keeps is left as it is, until the next time.
 */
void
store_alert(const char *name, const char *subject, const char *detail, TimestampTz now)
{
	static SpiQuery read = {
		"SELECT detail FROM gpu_orch.alert WHERE name = $1 AND subject = $2 AND cleared_at IS NULL"
	};
	static SpiQuery clear = { "UPDATE gpu_orch.alert SET cleared_at = greatest($3, raised_at)"
							  " WHERE id IN (SELECT id FROM gpu_orch.alert WHERE name = $1"
							  "  AND subject = $2 AND cleared_at IS NULL FOR UPDATE SKIP LOCKED)" };
	static SpiQuery change = {
		"UPDATE gpu_orch.alert SET detail = $3"
		" WHERE id IN (SELECT id FROM gpu_orch.alert WHERE name = $1"
		"  AND subject = $2 AND cleared_at IS NULL FOR UPDATE SKIP LOCKED)"
	};
	static SpiQuery raise = {
		"INSERT INTO gpu_orch.alert (name, subject, detail, raised_at)"
		" SELECT r.name, $2, $3, $4 FROM gpu_orch.alert_rule r WHERE r.name = $1"
		" ON CONFLICT DO NOTHING"
	};
	SpiArgs args = SPI_ARGS_INIT;
	bool open;

	spi_begin();
	spi_arg_text(&args, name);
	spi_arg_text(&args, subject);
	open = spi_read(&read, &args, 1) == 1;
	if (detail == NULL)
	{
		spi_arg_time(&args, now);
		if (open)
			spi_run(&clear, &args);
	}
	else if (!open)
	{
		spi_arg_text(&args, detail);
		spi_arg_time(&args, now);
		spi_run(&raise, &args);
		ereport(guc_log_level,
				(errmsg("gpu_orch: alert \"%s\" for %s: %s", name, subject, detail)));
	}
	else if (strcmp(spi_text(0, 1), detail) != 0)
	{
		spi_arg_text(&args, detail);
		spi_run(&change, &args);
	}
	spi_end();
}

/* The subjects for which an alert is open. Allocated in the current memory context. */
static int
list_subjects(const char *name, char ***subjects)
{
	static SpiQuery query = {
		"SELECT subject FROM gpu_orch.alert WHERE name = $1 AND cleared_at IS NULL"
	};
	SpiArgs args = SPI_ARGS_INIT;
	int n;

	spi_begin();
	spi_arg_text(&args, name);
	n = (int) spi_read(&query, &args, 0);
	*subjects = SPI_palloc((n + 1) * sizeof(char *));
	for (int i = 0; i < n; i++)
		(*subjects)[i] = spi_text(i, 1);
	spi_end();
	return n;
}

/* Raise the alert of this name for each of n cases, and clear it for whatever else it is open. */
void
store_alert_all(const char *name, const AlertCase *cases, int n, TimestampTz now)
{
	char **subjects;
	int n_open = list_subjects(name, &subjects);

	for (int i = 0; i < n; i++)
		store_alert(name, cases[i].subject, cases[i].detail, now);
	for (int i = 0; i < n_open; i++)
	{
		bool holds = false;

		for (int c = 0; c < n; c++)
			holds = holds || strcmp(cases[c].subject, subjects[i]) == 0;
		if (!holds)
			store_alert(name, subjects[i], NULL, now);
	}
}

/* Clear the alerts of this name that were raised before a time: they told of a moment. */
void
store_alert_expire(const char *name, TimestampTz before, TimestampTz now)
{
	static SpiQuery query = {
		"UPDATE gpu_orch.alert SET cleared_at = greatest($3, raised_at)"
		" WHERE id IN (SELECT id FROM gpu_orch.alert WHERE name = $1"
		"  AND raised_at < $2 AND cleared_at IS NULL FOR UPDATE SKIP LOCKED)"
	};
	SpiArgs args = SPI_ARGS_INIT;

	spi_begin();
	spi_arg_text(&args, name);
	spi_arg_time(&args, before);
	spi_arg_time(&args, now);
	spi_run(&query, &args);
	spi_end();
}
