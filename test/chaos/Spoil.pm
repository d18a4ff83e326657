# Spoil.pm: a thing made wrong after a round that was right, to show that Checker.pm notices. Nothing else may use it.
package Spoil;

use strict;
use warnings FATAL => 'all';

# An interval of a pod whose create and delete were answered: nothing excuses what is missing from it.
my $answered = q{SELECT max(s.id) FROM gpu_orch.spend s
	JOIN gpu_orch.cloud_op c ON c.worker = s.worker AND c.kind = 'create' AND c.http_status = 201
	JOIN gpu_orch.cloud_op d ON d.worker = s.worker AND d.kind = 'delete' AND d.http_status = 204
	WHERE s.ended_at - s.started_at > interval '1.5 seconds'};

my %spoil = (
	pod => sub {
		my ($server, $sim) = @_;
		my ($installation) = $server->sql('SELECT substr(id, 1, 8) FROM gpu_orch.installation');

		$server->sql('SELECT gpu_orch.pause()');
		$sim->create("gpo-$installation-1-abcdefghjkmnpqrstvwxyz0123");
	},
	spend => sub { $_[0]->sql("UPDATE gpu_orch.spend SET ended_at = started_at + interval '0.1 seconds' WHERE id = ($answered)"); },
	task => sub { $_[0]->sql('DELETE FROM gpu_orch.task WHERE id = (SELECT max(id) FROM gpu_orch.task)'); },
	attempt => sub {
		$_[0]->sql(q{INSERT INTO gpu_orch.attempt SELECT task_id, attempt + 1, worker, gen_random_uuid(), claimed_at, ended_at, outcome, failure,
			final_state, error, result FROM gpu_orch.attempt WHERE outcome = 'succeeded' ORDER BY task_id DESC LIMIT 1});
	});

# it(WHAT, SERVER, SIM): make it wrong.
sub it
{
	my ($what, $server, $sim) = @_;

	($spoil{$what} // die "SPOIL is one of " . join(', ', sort keys %spoil) . "\n")->($server, $sim);
	return;
}

1;
