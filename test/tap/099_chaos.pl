# A short run of chaos: rounds of test/chaos/run, each judged by its own checker. The seed is fixed, so that a
# round that fails can be repeated; GPU_ORCH_CHAOS_ROUNDS is the number of rounds.
use strict;
use warnings FATAL => 'all';
use FindBin;
use Test::More;

my $rounds = $ENV{GPU_ORCH_CHAOS_ROUNDS} || 15;
my $report = `ROUNDS=$rounds SEED=1 JOBS=2 "$FindBin::Bin/../chaos/run" 2>&1`;

is($?, 0, "$rounds rounds of chaos, and no round failed") or diag($report);
like($report, qr/^$rounds rounds in .*: [1-9]\d* tasks, [1-9]\d* pods$/m, 'tasks were done, and pods came and went');
like($report, qr/^kills: \d+ leader, \d+ backend, \d+ postmaster, \d+ worker$/m, 'things were killed');
like($report, qr/^points: (?:none in this library|\d+, of which [1-9]\d* were armed and [1-9]\d* reached)$/m, 'at labelled steps too, where there are any');
like($report, qr/^faults of the provider: [1-9]\d*: .*\d+ create drop, \d+ create drop_after/m, 'and the provider failed');
like($report, qr/^$rounds passed, 0 failed$/m, 'every round passed');
note($report);
done_testing();
