# A short storm of DDL over tables under load, judged by its own judge; and one at whose end things are spoiled, which the
# judge must notice. GPU_ORCH_STORM_SECONDS is how long the first lasts.
use strict;
use warnings FATAL => 'all';
use FindBin;
use Test::More;

my $seconds = $ENV{GPU_ORCH_STORM_SECONDS} || 25;
my $storm = "$FindBin::Bin/../storm/run";
# What is gone ten seconds after it was terminated takes longer on a machine that does much else.
my $report = `SECONDS=$seconds SEED=1 KILLS=6 GONE=60 "$storm" 2>&1`;

is($?, 0, "$seconds seconds of DDL, and nothing differs") or diag($report);
like($report, qr/^compared: \d+ indexes, [1-9]\d* tasks$/m, 'tasks were submitted');
like($report, qr/^  complete_task: done [1-9]/m, 'and completed');
like($report, qr/^  $_: done [1-9]/m, "$_ was done") for 'create index', 'drop index', 'add column', 'drop column', 'reindex concurrently';
like($report, qr/^sent: cancel [1-9]\d*, kill -9 [1-9]\d*, kills seen [1-9]\d*, terminate [1-9]\d*$/m, 'backends were disturbed');
like($report, qr/^0 differences$/m, 'there are no differences');
note($report);

$report = `SECONDS=4 SEED=1 GONE=60 SPOIL=1 "$storm" 2>&1`;
isnt($?, 0, 'what is spoiled is noticed');
like($report, qr/$_/, "a $_") for
	'index attempt_pkey: .*lacks matching index tuple',
	'index attempt_pkey: row \S+ of attempt is not in the index',
	'column storm_0_2 of attempt is not 42 in \d+ rows',
	'task \S+ was submitted as \d+, but is not there',
	'task \S+ \(\d+\) has no end',
	'I3: a task stands in one place';
note($report);
done_testing();
