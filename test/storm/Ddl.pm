# Ddl.pm: what an administrator does to the tables under load, one statement at a time, drawn at random: indexes,
# columns, rewrites, tablespaces, publications. Must not know of tasks, and must lose no row: what empties a table
# puts its rows back in the same transaction.
package Ddl;

use strict;
use warnings FATAL => 'all';

# What the statements need. slow() is true of each row, and now and then takes a while to say so: to build an index
# that has it as its predicate takes as long as for a large table.
our $setup = q{
	CREATE SCHEMA storm;
	CREATE FUNCTION storm.slow(bigint) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$
	BEGIN
		IF random() < 0.02 THEN PERFORM pg_sleep(0.01); END IF;
		RETURN true;
	END $$;
	GRANT USAGE ON SCHEMA storm TO PUBLIC;
	CREATE TABLE storm.ours AS SELECT c.relname AS index FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
		WHERE c.relnamespace = 'gpu_orch'::regnamespace};

# The tables, and the index of each that CLUSTER follows.
our %tables = (task => 'task_pkey', ready_queue => 'ready_queue_head', lease => 'lease_pkey',
	attempt => 'attempt_pkey', waiting => 'waiting_pkey', worker => 'worker_pkey');

# The indexes that a table may get: what follows its name in CREATE INDEX, with UNIQUE put first; and, for one that
# keeps no order, a condition that it can answer and that each row meets.
my @indexes = (
	[ 'task', '(kind)' ],
	[ 'task', '(submitted_by, id)' ],
	[ 'task', '(tenant, priority DESC, id) INCLUDE (kind)' ],
	[ 'task', '(lower(kind)) WHERE storm.slow(id)' ],
	[ 'task', q{UNIQUE (id) WHERE kind = 'b' AND storm.slow(id)} ],
	[ 'task', q{UNIQUE ((payload->>'key')) WHERE kind = 'c' AND storm.slow(id)} ],
	[ 'task', 'USING gin (payload)', q{payload @> '{}'} ],
	[ 'task', 'USING brin (id)', 'id >= 0' ],
	[ 'ready_queue', '(rank)' ],
	[ 'ready_queue', '(tag) WHERE storm.slow(task_id)' ],
	[ 'ready_queue', 'UNIQUE (task_id, attempt) WHERE storm.slow(task_id)' ],
	[ 'ready_queue', '((attempt % 2), task_id) WHERE losses = 0' ],
	[ 'lease', '(claimed_at)' ],
	[ 'lease', 'UNIQUE (id) WHERE storm.slow(task_id)' ],
	[ 'lease', '(progress)' ],
	[ 'lease', '(worker, attempt) WHERE faults > 0' ],
	[ 'attempt', '(worker) WHERE storm.slow(task_id)' ],
	[ 'attempt', '(outcome, ended_at)' ],
	[ 'attempt', q{((error IS NULL)) WHERE outcome <> 'released'} ],
	[ 'attempt', 'USING brin (task_id)', 'task_id >= 0' ],
	[ 'waiting', '(since)' ],
	[ 'waiting', '(state, shape) WHERE storm.slow(task_id)' ],
	[ 'worker', '(last_heartbeat)' ],
	[ 'worker', q{(busy_at) WHERE state = 'active'} ]);

# The columns that a table may get: the type and the rest; what each row must hold in it, if that is one value.
my @columns = (
	[ 'int' ],
	[ q{text DEFAULT 'storm'}, q{'storm'::text} ],
	[ 'int NOT NULL DEFAULT 42', '42' ],
	[ q{jsonb NOT NULL DEFAULT '{"a": 1}'}, q{'{"a": 1}'::jsonb} ],
	[ 'timestamptz NOT NULL DEFAULT clock_timestamp()' ]);

# condition(INDEX): the condition for an index of ours that keeps no order; undef for others.
sub condition { return $_[0] =~ /^storm_\d+_(\d+)/ ? $indexes[$1][2] : undef; }

# value(COLUMN): what each row holds in a column of ours; undef where that is not one value.
sub value { return $_[0] =~ /^storm_\d+_(\d+)/ ? $columns[$1][1] : undef; }

sub one_of { return $_[ rand @_ ]; }

# One of the indexes of a table: an added one, or any.
sub index_of
{
	my ($self, $table, $added) = @_;
	my $rows = $self->{ask}->("SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid "
		  . "WHERE i.indrelid = 'gpu_orch.$table'::regclass"
		  . ($added ? ' AND c.relname NOT IN (SELECT index FROM storm.ours)' : '') . ' ORDER BY 1');

	return one_of(map { $_->[0] } @$rows);
}

sub column_of
{
	my ($self, $table) = @_;

	return one_of(map { $_->[0] } @{ $self->{ask}->("SELECT attname FROM pg_attribute "
			  . "WHERE attrelid = 'gpu_orch.$table'::regclass AND attname LIKE 'storm%' AND NOT attisdropped ORDER BY 1") });
}

# Whether a table has as many indexes more as it may get. What is cancelled leaves its own behind, and each statement
# of the load locks them all.
sub crowded
{
	my ($self, $table) = @_;

	my $rows = $self->{ask}->("SELECT FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid "
		  . "WHERE i.indrelid = 'gpu_orch.$table'::regclass AND c.relname NOT IN (SELECT index FROM storm.ours)");

	return @$rows >= 30;
}

# unless_crowded(SUB): the sub, where the table may get another index.
sub unless_crowded
{
	my ($sub) = @_;

	return sub { return crowded(@_) ? () : $sub->(@_); };
}

sub create_index
{
	my ($self, $table, $concurrently) = @_;
	my @those = grep { $indexes[$_][0] eq $table } 0 .. $#indexes;
	my $which = one_of(@those);
	my $definition = $indexes[$which][1];
	my $unique = $definition =~ s/^UNIQUE // ? 'UNIQUE ' : '';

	return sprintf 'CREATE %sINDEX %sstorm_%d_%d ON gpu_orch.%s %s', $unique, $concurrently ? 'CONCURRENTLY ' : '',
	  ++$self->{number}, $which, $table, $definition;
}

# A statement about an index, or about an added one, where there is one.
sub about_index
{
	my ($before, $after, $added) = @_;

	return sub {
		my ($self, $table) = @_;
		my $index = $self->index_of($table, $added) or return;

		return "$before gpu_orch.\"$index\" $after";
	};
}

sub about_table
{
	my ($before, $after) = @_;

	return sub { return "$before gpu_orch.$_[1] " . ($after // ''); };
}

sub space { return one_of('storm', 'pg_default'); }

# What may be done: how often, its name, and how its statement is made for a table.
our @actions = (
	[ 6, 'create index', unless_crowded(\&create_index) ],
	[ 4, 'create index concurrently', unless_crowded(sub { return create_index(@_, 1); }) ],
	[ 5, 'drop index', about_index('DROP INDEX', '', 1) ],
	[ 3, 'drop index concurrently', about_index('DROP INDEX CONCURRENTLY', '', 1) ],
	[ 2, 'reindex', about_index('REINDEX INDEX', '') ],
	[ 3, 'reindex concurrently', unless_crowded(about_index('REINDEX INDEX CONCURRENTLY', '')) ],
	[ 1, 'reindex table', about_table('REINDEX TABLE') ],
	[ 1, 'reindex table concurrently', unless_crowded(about_table('REINDEX TABLE CONCURRENTLY')) ],
	[ 3, 'add column', sub {
		my ($self, $table) = @_;
		my $which = int rand @columns;

		return sprintf 'ALTER TABLE gpu_orch.%s ADD COLUMN storm_%d_%d %s', $table, ++$self->{number}, $which, $columns[$which][0];
	} ],
	[ 3, 'drop column', sub {
		my ($self, $table) = @_;
		my $column = $self->column_of($table) or return;

		return "ALTER TABLE gpu_orch.$table DROP COLUMN $column";
	} ],
	[ 3, 'move index', sub { return about_index('ALTER INDEX', 'SET TABLESPACE ' . space())->(@_); } ],
	[ 1, 'move table', sub { return about_table('ALTER TABLE', 'SET TABLESPACE ' . space())->(@_); } ],
	[ 2, 'vacuum full', about_table('VACUUM FULL') ],
	[ 2, 'cluster', sub { return "CLUSTER gpu_orch.$_[1] USING $tables{$_[1]}"; } ],
	# The worker's profiles refer to it.
	[ 2, 'truncate and refill', sub {
		my ($self, $table) = @_;

		return if $table eq 'worker';
		return ('BEGIN', "LOCK TABLE gpu_orch.$table",
			"CREATE TEMP TABLE kept ON COMMIT DROP AS SELECT * FROM gpu_orch.$table", "TRUNCATE gpu_orch.$table",
			one_of("INSERT INTO gpu_orch.$table SELECT * FROM kept ORDER BY random()", 'ROLLBACK'), 'COMMIT');
	} ],
	[ 1, 'create publication', sub { return sprintf 'CREATE PUBLICATION storm_%d FOR ALL TABLES', ++$_[0]{number}; } ],
	[ 2, 'drop publication', sub {
		my $publication = one_of(map { $_->[0] } @{ $_[0]{ask}->('SELECT pubname FROM pg_publication ORDER BY 1') }) or return;

		return "DROP PUBLICATION $publication";
	} ],
	[ 2, 'analyze', about_table('ANALYZE') ],
	[ 2, 'vacuum', about_table('VACUUM') ],
	[ 2, 'fillfactor', sub { return "ALTER TABLE gpu_orch.$_[1] SET (fillfactor = " . one_of(30, 50, 80, 100) . ')'; } ]);

# new(NUMBER, ASK): NUMBER is where the names of what is made begin, ASK a function that returns the rows of a query.
sub new
{
	my ($class, $number, $ask) = @_;

	return bless {number => $number, ask => $ask}, $class;
}

# draw(): the name of an action and its statements.
sub draw
{
	my ($self) = @_;
	my @pot = map { ($_) x $_->[0] } @actions;

	for (;;)
	{
		my $action = one_of(@pot);
		my @statements = $action->[2]->($self, one_of(sort keys %tables));

		return ($action->[1], @statements) if defined $statements[0];
	}
}

1;
