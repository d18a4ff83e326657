# Load.pm: a client that submits tasks and works them off, by calls drawn at random, some of them in transactions, and
# that writes down what it was told: the ledger. Must not know of the tables, nor of what is done to them.
package Load;

use strict;
use warnings FATAL => 'all';
use IO::Handle;
use Session;

# What the application's side needs.
our $setup = q{
	CREATE ROLE load LOGIN IN ROLE gpu_orch_submitter, gpu_orch_worker, gpu_orch_operator;
	SELECT gpu_orch.create_tenant('narrow', 3);
	SELECT gpu_orch.create_tenant('wide', weight => 2);
	SELECT gpu_orch.grant_tenant('narrow', 'load');
	SELECT gpu_orch.grant_tenant('wide', 'load')};

my @kinds = qw(a b c);
our $capabilities = '{"services": ["a", "b", "c"], "hardware": {"gpu_memory_gb": 1}}';

# States that may come: no claims at this isolation level (25001), a worker that was ended or registered anew meanwhile (42501), a lease that is lost (GO001),
# a move that its state does not allow (GO004), a parent that was rolled back (GO002).
my $lost = '25001|42501|GO001|GO002|GO004';

sub one_of { return $_[ rand @_ ]; }

# new(SERVER, NUMBER, LEDGER): LEDGER is the file to write to.
sub new
{
	my ($class, $server, $number, $ledger) = @_;
	my $self = bless {number => $number, worker => "w$number", workers => 0, keys => 0, held => [], ids => [], pending => []}, $class;

	open $self->{ledger}, '>>', $ledger or die "$ledger: $!";
	$self->{ledger}->autoflush(1);
	$self->{session} = Session->new($server, 'load', 'storm load', sub {
		$self->{held} = [];
		undef $self->{token};
		return "SET statement_timeout = " . one_of(50, 200, 1000, 5000); });
	return $self;
}

sub call
{
	my ($self, $what, $statement, $expected) = @_;

	# Within a transaction nothing goes on after an error, nor after the connection is gone.
	return if $self->{broken};
	my $rows = $self->{session}->call($what, $statement, $expected);
	$self->{broken} = 1 if !$rows && $self->{in_transaction};
	$self->{unknown} = 1 if !$rows && !defined $self->{session}{state};
	return $rows;
}

# Write a line into the ledger: at once, or when the transaction is known to have ended, with its outcome.
sub note
{
	my ($self, $outcome, @line) = @_;

	if ($self->{in_transaction})
	{
		push @{ $self->{pending} }, [ $outcome, @line ];
		return;
	}
	print { $self->{ledger} } join("\t", $outcome, @line), "\n";
	return;
}

# The outcome of the last call.
sub outcome
{
	my ($self, $rows) = @_;

	return $rows ? 'done' : defined $self->{session}{state} ? 'refused' : 'unknown';
}

sub new_key { my ($self) = @_; return "k$self->{number}-" . ++$self->{keys}; }

# What a task is besides its kind and key, by the names of submit_task()'s arguments.
sub task
{
	my ($self, $key) = @_;
	my %task = (kind => "'" . one_of(@kinds) . "'", payload => qq('{"key": "$key"}'), idempotency_key => "'$key'",
		priority => int rand 3);

	$task{tenant} = one_of(q{'narrow'}, q{'wide'}) if rand() < 0.3;
	$task{max_attempts} = one_of(1, 2, 5) if rand() < 0.3;
	$task{requirements} = sprintf q('{"hardware": {"gpu_memory_gb": %d}}'), 0 if rand() < 0.2;
	$task{run_at} = "gpu_orch.clock() + '" . int(rand 500) . " ms'" if rand() < 0.15;
	$task{depends_on} = 'ARRAY[' . one_of(@{ $self->{ids} }) . ']' if @{ $self->{ids} } && rand() < 0.15;
	return %task;
}

sub submit
{
	my ($self) = @_;
	my $key = $self->new_key;
	my %task = $self->task($key);
	my $arguments = join ', ', map { "$_ => $task{$_}" } sort keys %task;
	my $rows = $self->call('submit_task', "SELECT gpu_orch.submit_task($arguments)", $lost);

	$self->note($self->outcome($rows), 'submit', $key, $rows ? $rows->[0][0] : 0);
	push @{ $self->{new_ids} }, $rows->[0][0] if $rows;
	return;
}

sub submit_many
{
	my ($self) = @_;
	my @keys = map { $self->new_key } 1 .. 1 + rand 20;
	my $tasks = join ', ', map {
		sprintf '{"kind": "%s", "payload": {"key": "%s"}, "idempotency_key": "%s"}', one_of(@kinds), $_, $_
	} @keys;
	my $rows = $self->call('submit_tasks', "SELECT * FROM gpu_orch.submit_tasks('[$tasks]')");

	$self->note($self->outcome($rows), 'submit', $keys[$_], $rows ? $rows->[$_][0] : 0) for 0 .. $#keys;
	return;
}

# The arguments that say who calls; registers first where need be. Undef where that failed.
sub who
{
	my ($self) = @_;

	if (!defined $self->{token})
	{
		$self->{held} = [];
		my $rows = $self->call('register_worker',
			"SELECT token FROM gpu_orch.register_worker('$self->{worker}', capabilities => '$capabilities')", "$lost|GO007");

		# Its session was taken over a few times within a minute: the next one is another worker's.
		$self->{worker} = "w$self->{number}-" . ++$self->{workers} if ($self->{session}{state} // '') eq 'GO007';
		return unless $rows;
		$self->{token} = $rows->[0][0];
	}
	return "'$self->{worker}', '$self->{token}'";
}

# A call of a worker, for one of the leases that it holds; the lease is let go of.
sub for_lease
{
	my ($self, $function, $arguments, $keep) = @_;
	my $who = $self->who or return;
	my $held = $self->{held};

	return $self->claim unless @$held;
	my $n = int rand @$held;
	my ($task, $lease) = @{ $held->[$n] };
	my $rows = $self->call($function, "SELECT gpu_orch.$function($who, $task, '$lease'$arguments)", $lost);

	splice @$held, $n, 1 unless $keep && $rows;
	$self->note('done', 'complete', $task, $lease) if $function eq 'complete_task' && $rows && $rows->[0][0] eq 't';
	$self->forget_if_ended;
	return;
}

# A worker whose token is no longer good registers again.
sub forget_if_ended
{
	my ($self) = @_;

	undef $self->{token} if ($self->{session}{state} // '') eq '42501';
	return;
}

sub claim
{
	my ($self) = @_;
	my $who = $self->who or return;
	my $rows = $self->call('claim_tasks',
		"SELECT task_id, lease FROM gpu_orch.claim_tasks($who, " . one_of(1, 1, 1, 3, 20) . ')', $lost);

	push @{ $self->{held} }, @{ $rows // [] };
	$self->forget_if_ended;
	return;
}

sub complete_many
{
	my ($self) = @_;
	my $who = $self->who or return;
	my @these = splice @{ $self->{held} };

	return $self->claim unless @these;
	my $rows = $self->call('complete_tasks', sprintf(q{SELECT * FROM gpu_orch.complete_tasks(%s, '{%s}', '{%s}')}, $who,
		join(',', map { $_->[0] } @these), join(',', map { $_->[1] } @these)), $lost);
	my %lease = map { @$_ } @these;

	$self->note('done', 'complete', $_->[0], $lease{ $_->[0] }) for @{ $rows // [] };
	$self->forget_if_ended;
	return;
}

sub complete_and_claim
{
	my ($self) = @_;
	my $who = $self->who or return;
	my $these = shift @{ $self->{held} } or return $self->claim;
	my $rows = $self->call('complete_and_claim',
		"SELECT task_id, lease FROM gpu_orch.complete_and_claim($who, $these->[0], '$these->[1]', max_tasks => 2)", $lost);

	if ($rows)
	{
		$self->note('done', 'complete', @$these);
		push @{ $self->{held} }, @$rows;
	}
	$self->forget_if_ended;
	return;
}

sub heartbeat
{
	my ($self) = @_;
	my $who = $self->who or return;
	my $held = join ',', map { $_->[1] } @{ $self->{held} };
	my $rows = $self->call('heartbeat',
		"SELECT directive FROM gpu_orch.heartbeat($who" . (rand() < 0.5 ? ", holding => '{$held}'" : '') . ')', $lost);

	# Drained or ended by somebody: the next session is a new one.
	undef $self->{token} if $rows && $rows->[0][0] ne 'continue' && !@{ $self->{held} };
	$self->forget_if_ended;
	return;
}

sub some_id { my ($self) = @_; return one_of(@{ $self->{ids} }) // 1; }

# Several calls in one transaction, at one of the levels, which may be rolled back.
sub transaction
{
	my ($self) = @_;
	my $level = one_of('READ COMMITTED', 'READ COMMITTED', 'READ COMMITTED', 'REPEATABLE READ');

	@$self{qw(in_transaction broken unknown)} = (1, 0, 0);
	$self->call('begin', "BEGIN ISOLATION LEVEL $level");
	for (1 .. 1 + rand 4)
	{
		one_of(\&submit, \&submit, \&submit_many, \&claim, sub { $_[0]->for_lease('complete_task', '') })->($self);
	}
	# An error that a transaction does not survive is answered by a rollback.
	my $how = $self->{broken} || rand() < 0.2 ? 'ROLLBACK' : 'COMMIT';
	my $lost_before = $self->{unknown};

	@$self{qw(in_transaction broken unknown)} = (0, 0, 0);
	my $rows = $lost_before ? undef : $self->call(lc $how, $how, '40001');
	my $outcome = $how eq 'ROLLBACK' ? 'refused' : $self->outcome($rows);

	# One that was cancelled before it began leaves the transaction open.
	while (!$lost_before && !$rows && defined $self->{session}{state})
	{
		$rows = $self->call('rollback', 'ROLLBACK');
	}

	for my $line (splice @{ $self->{pending} })
	{
		my ($was, @rest) = @$line;

		# A completion that is not known to have happened says nothing.
		next if $rest[0] eq 'complete' && $outcome ne 'done';
		$self->note($was eq 'done' ? $outcome : 'refused', @rest);
	}
	# What was claimed, and what the session is, is not known any more; what was submitted may be no parent.
	if ($outcome ne 'done')
	{
		undef $self->{token};
		$self->{new_ids} = [];
	}
	return;
}

# What a client does, and how often.
my @calls = (
	[ 25, \&submit ],
	[ 3, \&submit_many ],
	[ 25, \&claim ],
	[ 20, sub { $_[0]->for_lease('complete_task', q{, '{"done": true}'}) } ],
	[ 4, sub { $_[0]->for_lease('fail_task', q{, 'failed'}) } ],
	[ 2, sub { $_[0]->for_lease('fail_task', q{, 'rejected', 'rejected', false}) } ],
	[ 3, sub { $_[0]->for_lease('release_task', '') } ],
	[ 6, sub { $_[0]->for_lease('progress_task', ', 0.5', 1) } ],
	[ 4, \&complete_many ],
	[ 10, \&complete_and_claim ],
	[ 6, \&heartbeat ],
	[ 6, \&transaction ],
	[ 3, sub { $_[0]->call('cancel_task', 'SELECT gpu_orch.cancel_task(' . $_[0]->some_id . ')', $lost) } ],
	[ 2, sub { $_[0]->call('retry_task', 'SELECT gpu_orch.retry_task(' . $_[0]->some_id . ')', $lost) } ],
	[ 2, sub { $_[0]->call('admit', 'SELECT gpu_orch.admit()') } ],
	[ 1, sub { $_[0]->call('tasks', 'SELECT state, count(*) FROM gpu_orch.tasks GROUP BY 1') } ],
	[ 0.5, sub { $_[0]->call('drain_worker', "SELECT gpu_orch.drain_worker('$_[0]{worker}')", $lost) } ],
	[ 0.5, sub { $_[0]->call('terminate_worker', "SELECT gpu_orch.terminate_worker('$_[0]{worker}', true)", $lost) } ]);

# step(): one of them.
sub step
{
	my ($self) = @_;
	my $drawn = rand 123;

	$self->{new_ids} = [];
	for my $call (@calls)
	{
		$drawn -= $call->[0];
		next if $drawn >= 0;
		$call->[1]->($self);
		last;
	}
	push @{ $self->{ids} }, @{ $self->{new_ids} };
	shift @{ $self->{ids} } while @{ $self->{ids} } > 200;
	return;
}

1;
