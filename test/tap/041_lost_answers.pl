# Answers that never come. A create has no idempotency key: it is sent once, and what became of it is
# settled by looking. Each case ends with the provider's ledger and our rows agreeing.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use GpuOrch;
use PostgreSQL::Test::Utils;
use Provider;
use Test::More;

my $provider = Provider->start('--boot-seconds', '0');
my $node = GpuOrch->calling($provider, 'answers');
$node->sql(q{
	SELECT gpu_orch.create_pool('p', 'image:1', ARRAY['NVIDIA GeForce RTX 4090'], max_workers => 1,
		options => '{"policy": "fixed", "policy_options": {"fixed_workers": 0}, "spawn_timeout": "1 hour"}')});

# One pod is asked for under the faults given; returns the worker's id.
sub ask
{
	my @rules = @_;

	$node->sql('SELECT gpu_orch.pause()');
	$node->sql('SELECT gpu_orch.resume()');
	$provider->no_faults;
	$provider->fault(@rules) if @rules;
	return $node->sql(q{SELECT gpu_orch.spawn_worker('p')});
}

# End whatever there is and wait until nothing is left on either side.
sub end_all
{
	$provider->no_faults;
	$node->terminates('true');
	$node->all_end('all rows end');
	$node->until('no pod lives', sub { !$provider->pods(1) });
	is($node->sql(q{SELECT count(*) FROM gpu_orch.cloud_ops WHERE state IN ('planned', 'sent', 'unknown')}),
		0, 'no op is open');
	$node->holds_invariants;
}

sub pods_made_by
{
	my $id = shift;
	my $name = $node->sql("SELECT pod_name FROM gpu_orch.cloud_ops WHERE kind = 'create' AND worker = '$id'");
	return scalar grep { $_->{name} eq $name } $provider->pods;
}

# The cases: name, rules, state that the worker comes to, pods made.
my @cases = (
	['a plain create', [], 'initializing', 1],
	['the connection is cut after the pod was made', [{call => 'create', action => 'drop_after', count => 1}], 'initializing', 1],
	['502 after the pod was made', [{call => 'create', action => 'status_after', status => 502, count => 1}], 'initializing', 1],
	['an HTML 500 after the pod was made', [{call => 'create', action => 'status_after', status => 500, html => \1,
		count => 1}], 'initializing', 1],
	['201 that cannot be read', [{call => 'create', action => 'truncate', count => 1}], 'initializing', 1],
	['the connection is cut before anything happened', [{call => 'create', action => 'drop', count => 1}], 'terminated', 0],
	['503 before anything happened', [{call => 'create', action => 'status', status => 503, count => 1}], 'terminated', 0],
	['the pod was made and is listed late', [
		{call => 'create', action => 'drop_after', count => 1},
		{call => 'list', action => 'hide_new', seconds => 2}], 'initializing', 1],
	['no answer within the time limit, executed', [{call => 'create', action => 'delay', seconds => 4, count => 1}],
		'initializing', 1],
	['a used connection that closes after the pod was made',
		[{call => 'create', action => 'close_reused', count => 1}], 'initializing', 1],
);
for my $case (@cases)
{
	my ($name, $rules, $state, $pods) = @$case;

	subtest $name => sub {
		my $id = ask(map { {%$_} } @$rules);

		$node->worker_is($id, $state, "the worker is $state");
		is(pods_made_by($id), $pods, "$pods pod(s) were made for the intent");
		end_all();
	};
}

# kill -9 of the leader between the intent and the answer, and the answer is dropped: no second pod,
# and the first is adopted.
subtest 'the leader is killed before the answer' => sub {
	my $creates = $provider->ledger->{totals}{creates};
	my $id = ask({call => 'create', action => 'delay', seconds => 5, count => 1});

	$node->until('the create is on its way', sub {
		$node->sql("SELECT sent_at IS NOT NULL FROM gpu_orch.cloud_ops WHERE worker = '$id'") eq 't' });
	$node->kill_leader;
	$node->worker_is($id, 'initializing', 'the pod is adopted');
	is(pods_made_by($id), 1, 'one pod was made for the intent');
	is($provider->ledger->{totals}{creates}, $creates + 1, 'and no other');
	like($node->sql("SELECT reason FROM gpu_orch.cloud_ops WHERE worker = '$id' AND kind = 'create'"),
		qr/adopted/, 'by looking');
	end_all();
};

# kill -9 of the whole server in the same place.
subtest 'the server is killed before the answer' => sub {
	my $id = ask({call => 'create', action => 'delay', seconds => 5, count => 1});

	$node->until('the create is on its way', sub {
		$node->sql("SELECT sent_at IS NOT NULL FROM gpu_orch.cloud_ops WHERE worker = '$id'") eq 't' });
	$node->stop('immediate');
	$node->start;
	$node->worker_is($id, 'initializing', 'the pod is adopted');
	is(pods_made_by($id), 1, 'one pod was made for the intent');
	end_all();
};

$node->stop;
done_testing();
