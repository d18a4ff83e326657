# The outcome matrix: a call, cut off at each place where a call can be cut off, having taken effect, not, or later,
# its answer heard or lost. What cannot be is printed with the reason; each other cell is played, and in the end the
# provider's ledger and our rows agree: no pod is leaked or made twice for one intent, each delete is proved, nothing
# is counted below what the provider billed nor above it by more than the bound.
use strict;
use warnings FATAL => 'all';
use FindBin;
use lib $FindBin::Bin, "$FindBin::Bin/../chaos";
use Checker;
use Cut;
use GpuOrch;
use PostgreSQL::Test::Utils;
use Provider;
use Test::More;
use Wire;

# The cells that can be, and why the others cannot. The first letter: not executed, executed (Y), later; of a list:
# an old view, the view of now, one that changes between two pages. The second: answered, or lost (X).
my @all = qw(NX NA YX YA LX LA);
my $unsent = 'no request arrived, so there is nothing to execute or to answer';
my $broken = 'the answer never came to its end';
my @phases = (
	# name, in words, creates, deletes and lists, why not: executed, answered, lost
	[ 'resolve', 'at the look-up of the name', 'NX', 'NX', { executed => $unsent, answered => $unsent } ],
	[ 'connect', 'at connecting', 'NX', 'NX', { executed => $unsent, answered => $unsent } ],
	[ 'tls', 'at the TLS handshake', 'NX', 'NX', { executed => $unsent, answered => $unsent } ],
	[ 'slam', 'before the headers', 'NX', 'NX', { executed => $unsent, answered => $unsent } ],
	[ 'headers', 'after the headers', 'NX NA', 'NX YX LX', { executed => 'what to make stands in the body, which was not read',
			answered => 'the request ends with its headers: its answer is "after the answer"' } ],
	[ 'body', 'after the body', 'NX YX LX', '', { answered => 'nothing was answered' } ],
	[ 'silence', 'before the status line', 'NX YX LX', 'NX YX LX', { answered => 'nothing was answered' } ],
	[ 'status', 'after the status line', 'NX YX LX', 'NX YX LX', { answered => $broken } ],
	[ 'in_headers', 'in the headers of the answer', 'NX YX LX', 'NX YX LX', { answered => $broken } ],
	[ 'in_body', 'in the body of the answer', 'NX YX LX', 'NX YX LX', { answered => $broken } ],
	[ 'complete', 'after the answer', 'NA YA LA', 'NA YA LA', { lost => 'the whole answer came' } ],
	[ 'slow', 'slowly', "@all", "@all", {} ],
	[ 'cap', 'beyond the caps', 'NX YX LX', 'NX YX LX', { answered => 'what is too long is not taken for an answer' } ],
	[ 'kill', 'and the leader is killed', "@all", "@all", {} ]);
my %phase = map { $_->[0] => $_ } @phases;
my $no_body = 'the request has no body';

# What must become of a cell, by call and letters; and where a phase makes it another.
my $late = qr/^unknown, then (?:adopted|absent, and what came later was ended)$/;
my %expected = (
	'create NX' => qr/^unknown, then absent$/, 'create YX' => qr/^unknown, then adopted$/, 'create LX' => $late,
	'create NA' => qr/^refused$/, 'create YA' => qr/^made$/, 'create LA' => $late,
	(map { ("delete $_" => qr/^asked for again, then proved$/) } qw(NX NA YX LX)),
	(map { ("delete $_" => qr/^answered, then proved$/) } qw(YA LA)),
	(map { ("list $_" => qr/^nothing changes, the next one adopts$/) } qw(NX YX LX)),
	'list NA' => qr/^one look, the next one adopts$/, 'list YA' => qr/^adopts$/, 'list LA' => qr/^adopts$/);
my $heard = qr/^(?:answered|asked for again), then proved$/;
my %special = (
	(map { ("create $_ NX" => qr/^not sent, then made$/) } qw(resolve connect tls)),
	# What leader was killed with an answer not yet applied has lost it.
	# Nothing follows a 204, so libcurl takes one whose headers break off for whole; what counts is the proof.
	(map { ("delete $_ YX" => $heard, "delete $_ LX" => $heard) } qw(status in_headers)),
	map { ("$_ kill NA" => $expected{"$_ NX"}, "$_ kill YA" => $expected{"$_ YX"}, "$_ kill LA" => $expected{"$_ LX"}) }
	  qw(create delete list));

# Seconds after which a late call takes effect: before its outcome is settled, or after that.
my %seconds = (soon => 1.2, late => 5);
my %late = map { $_ => 1 } qw(silence in_headers complete slow);

my (@cells, @impossible);
for my $call (qw(create delete list))
{
	for my $phase (@phases)
	{
		my ($name, $words, $creates, $others, $why) = @$phase;
		my %possible = map { $_ => 1 } split / /, $call eq 'create' ? $creates : $others;

		for my $letters (@all)
		{
			my ($done, $heard) = split //, $letters;
			my $cell = { call => $call, phase => $name, letters => $letters, done => $done, heard => $heard,
				name => join ', ', $call, $words,
					($call eq 'list' ? { N => 'old view', Y => 'view of now', L => 'changing view' } :
					{ N => 'not executed', Y => 'executed', L => 'executed later' })->{$done},
						$heard eq 'A' ? 'answered' : 'lost' };

			if ($possible{$letters})
			{
				push @cells, $cell;
				next;
			}
			$cell->{why} = $others eq '' && $call ne 'create' ? $no_body :
				$heard eq 'X' && $why->{lost} || $heard eq 'A' && $why->{answered} || $why->{executed};
			push @impossible, $cell;
		}
	}
}
note("impossible: $_->{name}: $_->{why}") for @impossible;
is(scalar(grep { !$_->{why} } @impossible), 0, 'each impossible cell has its reason');
is(@cells . ' and ' . @impossible, '113 and 139', 'of 252 cells so many are played, and so many are impossible');

# cells(CALL, PHASE...): the cells of a call in these phases; without phases in those that need no more than the proxy.
sub cells
{
	my ($call, @names) = @_;
	my %wanted = map { $_ => 1 } @names ? @names : grep { !/^(?:resolve|connect|tls|slam|kill)$/ } keys %phase;

	return grep { $_->{call} eq $call && $wanted{ $_->{phase} } } @cells;
}

# Say what became of a cell.
sub report
{
	my ($cell, $became) = @_;

	like($became, $special{"$cell->{call} $cell->{phase} $cell->{letters}"} // $expected{"$cell->{call} $cell->{letters}"},
		"$cell->{name}: $became");
	$cell->{played}++;
	return;
}

my $provider = Provider->start('--boot-seconds', '0', '--paging', '--page-size', '8');
my $proxy = Cut->start($provider->{address});
my $url = "http://$proxy->{address}/v2";
my $node = GpuOrch->calling($provider, 'matrix',
	'gpu_orch.runpod_api_url' => $url, 'gpu_orch.api_concurrency' => 64,
	'gpu_orch.http_connect_timeout' => '1s', 'gpu_orch.settle_time' => '1s',
	'gpu_orch.spawn_rate_limit' => 1000);
my $wire = Wire->new($node, 'app');
$SIG{PIPE} = 'IGNORE';

# The rows of a statement, each joined by "|"; dies on an error.
sub rows
{
	$wire->send_query($_[0]);
	my $answer = $wire->answer;

	die "$answer->{message}: $_[0]" if defined $answer->{state};
	return map { join '|', map { $_ // '' } @$_ } @{ $answer->{rows} };
}

sub value { return (rows($_[0]))[0]; }
sub until_true { my ($sql, $what) = @_; return wait_until($what, sub { (value($sql) // '') eq 't' }); }
sub quoted { return join ', ', map { "'$_'" } @_; }
sub end_workers { return 'SELECT gpu_orch.terminate_worker(id, true) FROM unnest(ARRAY[' . quoted(@_) . ']::text[]) AS id'; }

# A list by request; false if it could not be had.
sub reconcile
{
	$wire->send_query('SELECT gpu_orch.reconcile_now()');
	return !defined $wire->answer->{state};
}

# What the proxy is to do with a call.
sub rule_for
{
	my ($cell) = @_;
	my $is_early = $cell->{phase} eq 'headers' && $cell->{heard} eq 'A';

	return { at => $is_early ? 'early' : $cell->{phase} eq 'kill' ? 'hold' : $cell->{phase},
		executed => { N => 'no', Y => 'yes', L => 'later' }->{ $cell->{done} },
		seconds => $seconds{ $late{ $cell->{phase} } ? 'late' : 'soon' }, gap => $cell->{heard} eq 'A' ? 0.08 : 0.3 };
}

# The rule for a list, whose view is the simulator's to make.
sub list_rule
{
	my ($cell) = @_;
	my %rule = (%{ rule_for($cell) });

	$provider->fault({ call => 'list', action => 'hide_new', seconds => 500 }) if $cell->{done} eq 'N';
	if ($cell->{done} eq 'L')
	{
		@rule{qw(page vanish)} = (2, $provider->control(POST => 'pods', { foreign => 'passing-by' })->{id});
		$provider->fault({ call => 'list', action => 'overlap' });
	}
	return \%rule;
}

# Nothing is open or to come, and what lives is what we hold for living.
sub settle
{
	my $what = shift;

	wait_until("$what: all is settled", sub {
		my $left = $proxy->tell;

		return $left->{later} + $left->{held} == 0
		  && value(q{SELECT count(*) FROM gpu_orch.cloud_op WHERE state IN ('planned', 'sent', 'unknown')}) == 0
		  && value(q{SELECT count(*) FROM gpu_orch.workers WHERE state IN ('spawning', 'terminating')}) == 0
		  && value(q{SELECT count(*) FROM gpu_orch.workers WHERE state = 'initializing'}) == $provider->pods(1);
	});
	is($proxy->tell->{rules}, 0, "$what: each fault had its call");
	is(value(q{SELECT string_agg(name || ': ' || detail, '; ') FROM gpu_orch.check_invariants() WHERE NOT holds}), '',
		"$what: every invariant holds");
	return;
}

# What became of the create or the delete of a cell's worker; PODS is how many pods were made under each name.
sub outcome
{
	my ($cell, $made, $not_sent) = @_;
	my ($state, $reason, $status, $tries, $name) = split /\|/, value(qq{SELECT state, reason, http_status, tries, pod_name
		FROM gpu_orch.cloud_ops WHERE worker = '$cell->{worker}' AND kind = '$cell->{call}' ORDER BY op_id DESC LIMIT 1});
	my $pods = $made->{$name} // 0;

	return $reason ne 'proved' ? "$state, not proved" : ($tries > 1 ? 'asked for again' : 'answered') . ', then proved'
	  if $cell->{call} eq 'delete';
	return "$pods pods were made" if $pods > 1;
	return "unknown, then $reason" if $reason ne '' && $state eq 'done';
	return ($not_sent ? 'not sent, then ' : '') . "made, $status" =~ s/, 201//r if $state eq 'done';
	return $state eq 'refused' ? 'refused' . ($pods ? ', and made' : '') : "unknown, then $state"
	  . ($pods ? ', and what came later was ended' : '');
}

# Report what became of the creates and deletes of these cells.
sub report_outcomes
{
	my ($not_sent, @of) = @_;
	my %made;

	$made{ $_->{name} }++ for $provider->pods;
	report($_, outcome($_, \%made, $not_sent)) for @of;
	return;
}

# The one pod by which lists are judged: forget what became of its create, as if its answer had been lost.
my $witness;
sub forget_witness
{
	return qq{UPDATE gpu_orch.cloud_op SET state = 'unknown', answered_at = NULL, settled_at = NULL, pod_id = NULL, reason = NULL,
			verified = false, http_status = NULL, absent_looks = 0, absent_since = NULL
			WHERE kind = 'create' AND worker = (SELECT no FROM gpu_orch.worker WHERE id = '$witness');
		DELETE FROM gpu_orch.event WHERE subject = '$witness' AND kind IN ('pod_created', 'pod_adopted');
		UPDATE gpu_orch.worker SET state = 'spawning' WHERE id = '$witness';
		UPDATE gpu_orch.worker_profile SET pod_id = NULL WHERE worker = (SELECT no FROM gpu_orch.worker WHERE id = '$witness')};
}

# What the last list made of the witness.
sub witnessed
{
	my ($state, $looks) = split /\|/, value(qq{SELECT o.state, o.absent_looks FROM gpu_orch.cloud_op o
		JOIN gpu_orch.worker w ON w.no = o.worker WHERE w.id = '$witness' AND o.kind = 'create'});

	return $state eq 'done' ? 'adopts' : $state eq 'unknown' ? ($looks ? 'one look' : 'nothing changes') : $state;
}

sub witness_is_back { return until_true("SELECT state = 'initializing' FROM gpu_orch.workers
	WHERE worker_id = '$witness'", 'the witness is adopted'); }

# The pools, one for each part: what is refused in one must not matter in another. Then all pods that are to be deleted.
rows(qq{SELECT gpu_orch.create_pool('$_', 'image:1', ARRAY['NVIDIA L4'], max_workers => 60,
	options => '{"policy": "fixed", "policy_options": {"fixed_workers": 0, "spawning_grace": 86400, "scale_down_grace": 0},
	             "spawn_timeout": "60 days", "capabilities": {"services": ["none"]}}')}) for qw(cut whole outage kill);
until_true('SELECT bool_and(price_per_hour IS NOT NULL) FROM gpu_orch.offers', 'the pools have prices');
my @deletes = grep { $_->{call} eq 'delete' } @cells;
my @whole = rows(q{SELECT gpu_orch.spawn_worker('whole', } . (1 + @deletes) . ')');
until_true(q{SELECT bool_and(state = 'initializing') FROM gpu_orch.workers}, 'the pods are there');
($witness, my @others) = @whole;
$_->{worker} = shift @others for @deletes;

# Creates and deletes that the proxy cuts: all at once, since a failure keeps later calls waiting.
my @at_once = cells('create');
my @ends = cells('delete');
rows('BEGIN');
my @ids = rows(q{SELECT gpu_orch.spawn_worker('cut', } . @at_once . ')');
$_->{worker} = shift @ids for @at_once;
rows(end_workers(map { $_->{worker} } @ends));
$proxy->tell(rules => { map { ("$_->{call} $_->{worker}" => rule_for($_)) } @at_once, @ends });
rows('COMMIT');
settle('cut calls');
report_outcomes(0, @at_once, @ends);

# The provider cannot be reached, for all calls alike. What was not sent is never in doubt.
my %break = (
	resolve => sub { $node->set('gpu_orch.runpod_api_url' => 'https://provider.invalid/v2') },
	connect => sub { $proxy->tell(mode => 'deaf') },
	tls => sub { $node->set('gpu_orch.runpod_api_url' => "https://$proxy->{address}/v2") },
	slam => sub { $proxy->tell(mode => 'slam') });
for my $name (qw(resolve connect tls slam))
{
	my ($create, $delete, $list) = map { cells($_, $name) } qw(create delete list);
	my $is_unsent = $name ne 'slam';
	my $is_session = $name =~ /^(?:resolve|tls)$/;

	$break{$name}->();
	wait_until("no list can be read, $name", sub { !reconcile() });
	rows(forget_witness());
	rows('BEGIN');
	$create->{worker} = value(q{SELECT gpu_orch.spawn_worker('outage')});
	rows(end_workers($delete->{worker}));
	rows('COMMIT');
	until_true(qq{SELECT state = 'planned' AND tries > 0 AND message IS NOT NULL FROM gpu_orch.cloud_ops
		WHERE worker = '$delete->{worker}' AND kind = 'delete'}, 'a delete fails');
	# Another session has to look first, and so sends no create at all.
	my $asked = $is_session ? q{state = 'planned'} : $is_unsent ? q{state = 'planned' AND tries > 0} : q{state = 'unknown'};
	until_true("SELECT $asked FROM gpu_orch.cloud_ops WHERE worker = '$create->{worker}'", 'a create fails');
	ok(!reconcile(), "$list->{name}: it fails");
	my $became = witnessed();
	$proxy->tell(mode => 'pass');
	$node->set('gpu_orch.runpod_api_url' => $url) if $is_session;
	wait_until('lists can be read again', sub { reconcile() });
	witness_is_back();
	report($list, "$became, the next one adopts");
	settle($phase{$name}[1]);
	report_outcomes($is_unsent, $create, $delete);
	is(value(qq{SELECT count(*) FROM gpu_orch.events e JOIN gpu_orch.cloud_ops o ON o.pod_name = e.subject
		WHERE o.worker = '$create->{worker}' AND e.kind = 'create_unknown'}), $is_unsent ? 0 : 1,
		"$create->{name}: " . ($is_unsent ? 'it was never in doubt' : 'it was in doubt'));
}

# The leader is killed while it waits for a create, a delete and a list, or when it has their answers and has not
# looked at them.
for my $letters (@all)
{
	my ($create, $delete, $list) = map { my $call = $_;
		grep { $_->{letters} eq $letters } cells($call, 'kill') } qw(create delete list);
	my ($leader) = split /\|/, value('SELECT pid FROM gpu_orch.leader_status()');

	$proxy->tell(rules => { list => list_rule($list) });
	wait_until("$letters: a list is under way", sub { $proxy->tell->{held} == 1 });
	rows('BEGIN');
	$create->{worker} = value(q{SELECT gpu_orch.spawn_worker('kill')});
	rows(end_workers($delete->{worker}));
	rows(forget_witness());
	$proxy->tell(rules => { map { ("$_->{call} $_->{worker}" => rule_for($_)) } $create, $delete });
	rows('COMMIT');
	wait_until("$letters: three calls are under way", sub { $proxy->tell->{held} == 3 });
	if ($create->{heard} eq 'A')
	{
		kill 'STOP', $leader;
		$proxy->tell(release => 1);
	}
	my $killed = value('SELECT gpu_orch.clock()');
	kill 'KILL', $leader;
	undef $wire;
	wait_until('the leader is gone', sub { is_ended($leader) });
	$proxy->tell(release => 1);
	$provider->no_faults;
	wait_until('the server is back', sub { $wire = eval { Wire->new($node, 'app') } });
	wait_until('another leader is there', sub {
		eval { value("SELECT pid <> $leader FROM gpu_orch.leader_status()") eq 't' } // do {
			$wire = eval { Wire->new($node, 'app') } // $wire;
			0;
		};
	});
	witness_is_back();
	report($list, (value(qq{SELECT settled_at > '$killed' FROM gpu_orch.cloud_ops
		WHERE worker = '$witness' AND kind = 'create'}) eq 't' ?
		'nothing changes, the next one ' : '') . witnessed());
}
settle('killed leaders');
report_outcomes(0, cells('create', 'kill'), cells('delete', 'kill'));

# Lists, one by one, and each by request only. All pods are so old that each of them should be listed, but for a new
# witness, which an old view does not have.
$node->set('gpu_orch.reconcile_interval' => '1h');
$provider->control(POST => 'clock', { advance => 1000 });
rows(q{SELECT gpu_orch.advance_clock('1000 seconds')});
$witness = value(q{SELECT gpu_orch.spawn_worker('whole')});
witness_is_back();
ok(reconcile(), 'lists come by request') for 1 .. 2;
for my $cell (cells('list'))
{
	rows(forget_witness());
	$proxy->tell(rules => { list => list_rule($cell) });
	my $is_read = reconcile();
	my $became = witnessed();
	my $living = value(q{SELECT count(*) FROM gpu_orch.workers WHERE state = 'initializing'});
	$provider->no_faults;
	$became .= ', the next one adopts' if $became ne 'adopts' && reconcile() && witnessed() eq 'adopts';
	$became .= ', and others ended' if $living + ($became eq 'adopts' ? 0 : 1) != $provider->pods(1);
	report($cell, $is_read eq ($cell->{heard} eq 'A') ? $became : "$became, though " . ($is_read ? 'read' : 'not read'));
}
$node->set('gpu_orch.reconcile_interval' => '500ms');
reconcile();
settle('lists');

# The end: no pod lives, and the money is right. The checker that judges rounds of chaos does so here.
rows(end_workers(rows(q{SELECT worker_id FROM gpu_orch.workers WHERE state = 'initializing'})));
settle('the end');
is(scalar($provider->pods(1)), 0, 'no pod lives');
sub Rows::sql
{
	$wire->send_query($_[1]);
	return $wire->answer->{rows}[0][0];
}
# The bound of an unknown outcome: the time limit, the settle time, two intervals, and a delete that is asked for again.
$Checker::settled = 2 + 1 + 2 * 0.5 + 10;
is(join("\n", Checker::check(bless({}, 'Rows'), $provider->ledger, [], [])), '', 'the ledger and the rows agree');
is(scalar(grep { ($_->{played} // 0) == 1 } @cells), 113, 'each possible cell was played once');
undef $wire;
$node->stop;
done_testing();
