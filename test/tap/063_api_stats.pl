# What the view api_stats tells: how each kind of call did, which calls wait and until when, and the key that
# they are made with, by its fingerprint, which changes only when a new key has worked. And what follows from
# one failure: an operator's reading of the list respects what the provider asked for, and creates that were
# refused together count once.
use strict;
use warnings FATAL => 'all';
use Digest::SHA qw(sha256_hex);
use FindBin;
use lib $FindBin::Bin;
use GpuOrch;
use PostgreSQL::Test::Utils;
use Provider;
use Test::More;

my $provider = Provider->start('--boot-seconds', '0');
my $node = GpuOrch->calling($provider, 'api_stats', 'gpu_orch.cycle_interval' => '100ms');

sub stats { my ($call, $columns) = @_; return $node->sql("SELECT $columns FROM gpu_orch.api_stats WHERE call = '$call'"); }

# The digits that stand for a key: what `sha256sum` prints begins with them.
sub fingerprint { my ($key) = @_; return substr(sha256_hex($key), 0, 8); }

is($node->sql(q{SELECT string_agg(call, ' ') FROM gpu_orch.api_stats}), 'create get list delete catalog account billing',
	'there is a row for each kind of call');
$node->sql(q{SELECT gpu_orch.create_pool('p', 'image:1', ARRAY['NVIDIA L4'],
	options => '{"policy": "fixed", "policy_options": {"fixed_workers": 0}, "spawn_timeout": "1 day"}')});
$node->until('calls are counted',
	q{SELECT bool_and(calls > 0 AND failures = 0 AND last_success IS NOT NULL AND last_failure_at IS NULL)
	FROM gpu_orch.api_stats WHERE call IN ('list', 'catalog', 'account')});
is(stats('create', 'calls, failures, in_flight, last_success, gate, retry_at'), '0|0|0||open|',
	'where there were none, nothing is told');
is($node->sql('SELECT DISTINCT key_fingerprint FROM gpu_orch.api_stats'), fingerprint($provider->{key}),
	'the key has its fingerprint');
ok($node->sql(q{SELECT bool_and(since <= key_since AND key_since <= gpu_orch.clock()) FROM gpu_orch.api_stats}) eq 't',
	'and serves since a time');

subtest 'failures' => sub {
	$provider->fault({call => 'create', action => 'status', status => 402});
	my $worker = $node->sql(q{SELECT gpu_orch.spawn_worker('p')});
	$node->until('a create without money fails, and the next one waits',
		q{SELECT failures > 0 AND gate = 'waiting' AND retry_at > gpu_orch.clock()
		FROM gpu_orch.api_stats WHERE call = 'create'});
	is(stats('create', 'calls, failures, last_failure, last_success'), '1|1|balance|', 'for this reason');
	like(stats('create', 'message'), qr/402/, 'in these words');
	is(stats('delete', 'gate'), 'open', 'deletes do not wait');
	$node->advance('1 hour');
	$node->until('after the wait one is to try',
		q{SELECT calls > 1 OR gate = 'trying' FROM gpu_orch.api_stats WHERE call = 'create'});
	$provider->no_faults;
	$node->sql(q{SELECT gpu_orch.advance_clock('1 hour'); SELECT gpu_orch.spawn_worker('p')});
	$node->until('a success opens the gate, and the failure is still told',
		q{SELECT gate = 'open' AND last_success > last_failure_at FROM gpu_orch.api_stats WHERE call = 'create'});
	$node->sql(q{SELECT gpu_orch.alter_pool('p', '{"max_workers": 0}')});
	$node->all_end('all end');
	$node->until('deletes are counted',
		q{SELECT calls > 0 AND failures = 0 FROM gpu_orch.api_stats WHERE call = 'delete'});
	$node->until('and a pod that is asked for and gone is what was wanted to know',
		q{SELECT calls > 0 AND failures = 0 AND last_success IS NOT NULL FROM gpu_orch.api_stats WHERE call = 'get'});
	$node->sql(q{SELECT gpu_orch.alter_pool('p', '{"max_workers": 10}')});
};

subtest 'what the provider asks for holds for operators too' => sub {
	$provider->fault({call => 'list', action => 'status', status => 503, retry_after => 600, count => 1});
	$node->until('lists wait', q{SELECT gate = 'waiting' AND retry_at > gpu_orch.clock() + interval '5 minutes'
		FROM gpu_orch.api_stats WHERE call = 'list'});
	my $calls = stats('list', 'calls');
	like($node->refusal('SELECT gpu_orch.reconcile_now()'), qr/could not be read.*503/s, 'reconcile_now() says why');
	is(stats('list', 'calls'), $calls, 'and asks nothing');
	$node->advance('11 minutes');
	$node->until('until its time has come',
		"SELECT calls > $calls AND gate = 'open' FROM gpu_orch.api_stats WHERE call = 'list'");
	like($node->sql('SELECT gpu_orch.reconcile_now()'), qr/"pods": 0/, 'then it reads the list');
};

subtest 'refusals of creates that were under way together count once' => sub {
	my $before = stats('create', 'failures');
	$provider->fault({call => 'create', action => 'delay', seconds => 1}, {call => 'create', action => 'no_capacity'});
	$node->sql(q{SELECT gpu_orch.spawn_worker('p', 3)});
	$node->until('three are refused',
		"SELECT failures >= $before + 3 FROM gpu_orch.api_stats WHERE call = 'create'");
	$node->all_end('all are settled');
	is(stats('create', 'last_failure'), 'capacity', 'for lack of capacity');
	is($node->sql(q{SELECT refusals FROM gpu_orch.offers WHERE pool = 'p'}), 1, 'the offer was refused once');
	$provider->no_faults;
};

subtest 'a new key is shown when it has worked' => sub {
	my $old = $provider->{key};
	my $new = scalar reverse $old;
	my ($file) = $node->sql('SHOW gpu_orch.runpod_api_key_file');
	my $since = $node->sql('SELECT key_since FROM gpu_orch.api_stats LIMIT 1');

	umask 077;
	append_to_file("$file.new", $new);
	rename "$file.new", $file or die "rename: $!";
	$node->alerts(1, 'key_refused', 'a new key is refused');
	is($node->sql('SELECT DISTINCT key_fingerprint, key_since FROM gpu_orch.api_stats'), fingerprint($old) . "|$since",
		'the old one serves, and is shown');
	$provider->control(POST => 'key', {key => $new});
	my $shown = fingerprint($new);
	$node->until('it works: it is shown, with its own time',
		"SELECT bool_and(key_fingerprint = '$shown' AND key_since > '$since') FROM gpu_orch.api_stats");
	$node->until('calls succeed with it',
		q{SELECT last_success > key_since FROM gpu_orch.api_stats WHERE call = 'list'});
	my $rows = $node->sql('SELECT row_to_json(s) FROM gpu_orch.api_stats s');
	unlike($rows, qr/\Q$old\E|\Q$new\E/, 'no key is shown');

	$node->sql(q{ALTER SYSTEM SET gpu_orch.runpod_api_key_file = ''});
	$node->reload;
	$node->until('without a key there is none to show',
		'SELECT bool_and(key_fingerprint IS NULL AND key_since IS NULL) FROM gpu_orch.api_stats');
};

$node->holds_invariants;
$node->stop;
done_testing();
