# Judge.pm: compares, when all is at rest, each index with its table, the tables with what the server demands of
# them, and the tasks with the ledger that the clients wrote. Returns what differs, as text. Must change nothing.
package Judge;

use strict;
use warnings FATAL => 'all';
use Ddl;

# indexes(ASK): what is wrong with an index of the extension's tables, and how many were looked at.
sub indexes
{
	my ($ask) = @_;
	my @wrong;
	my $indexes = $ask->(q{
		SELECT c.relname, t.relname, m.amname, i.indisunique, pg_get_expr(i.indpred, i.indrelid),
			pg_get_indexdef(i.indexrelid, 1, false),
			(SELECT string_agg(pg_get_indexdef(i.indexrelid, n, false), ', ') FROM generate_series(1, i.indnkeyatts) n)
		FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_class t ON t.oid = i.indrelid
			JOIN pg_am m ON m.oid = c.relam
		WHERE t.relnamespace = 'gpu_orch'::regnamespace AND i.indisvalid ORDER BY 1});

	for my $index (@$indexes)
	{
		my ($name, $table, $method, $unique, $predicate, $first, $keys) = @$index;
		my $where = join ' AND ', map { "($_)" } grep { defined } $predicate, Ddl::condition($name);
		$where = "WHERE $where" if $where;

		if ($method eq 'btree')
		{
			eval { $ask->("SELECT bt_index_parent_check('gpu_orch.\"$name\"', true, true)"); 1 } or push @wrong, "index $name: $@";
		}
		push @wrong, other_rows($ask, $name, $table, $where, $method eq 'btree' ? "ORDER BY $first" : '');
		next unless $unique eq 't';
		my $twice = $ask->("SELECT $keys, count(*) FROM gpu_orch.\"$table\" $where GROUP BY $keys HAVING count(*) > 1"
			  . " AND num_nulls($keys) = 0");
		push @wrong, map { "index $name is unique, but: @$_" } @$twice;
	}
	return (\@wrong, scalar @$indexes);
}

# The rows of a table by an index against those by a sequential scan.
sub other_rows
{
	my ($ask, $index, $table, $where, $order) = @_;
	my $query = "SELECT ctid FROM gpu_orch.\"$table\" $where";
	my $by_index;

	# For this transaction the planner knows no other index.
	$ask->('BEGIN');
	$ask->("UPDATE pg_index SET indisvalid = false WHERE indrelid = 'gpu_orch.\"$table\"'::regclass "
		  . "AND indexrelid <> 'gpu_orch.\"$index\"'::regclass");
	$ask->('SET LOCAL enable_seqscan = off; SET LOCAL enable_sort = off');
	$ask->('SET LOCAL enable_bitmapscan = off') if $order;
	my $plan = join "\n", map { $_->[0] } @{ $ask->("EXPLAIN (COSTS OFF) $query $order") };
	$by_index = $ask->("$query $order") if $plan =~ /"?\Q$index\E"?/;
	$ask->('ROLLBACK');
	return "index $index cannot be scanned:\n$plan" if !$by_index;

	$ask->('SET enable_indexscan = off; SET enable_indexonlyscan = off; SET enable_bitmapscan = off');
	my %heap = map { $_->[0] => 1 } @{ $ask->($query) };
	$ask->('RESET ALL');
	my @more = grep { !delete $heap{ $_->[0] } } @$by_index;

	return (map { "index $index: row $_->[0] of $table is in the index alone" } @more),
	  map { "index $index: row $_ of $table is not in the index" } sort keys %heap;
}

# columns(ASK): added columns that do not hold their default.
sub columns
{
	my ($ask) = @_;
	my @wrong;
	my $columns = $ask->(q{SELECT c.relname, a.attname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
		WHERE c.relnamespace = 'gpu_orch'::regnamespace AND c.relkind = 'r' AND a.attname LIKE 'storm%' AND NOT a.attisdropped});

	for my $column (@$columns)
	{
		my ($table, $name) = @$column;
		my $value = Ddl::value($name) // next;
		my ($n) = @{ $ask->("SELECT count(*) FROM gpu_orch.$table WHERE $name IS DISTINCT FROM $value")->[0] };

		push @wrong, "column $name of $table is not $value in $n rows" if $n;
	}
	return @wrong;
}

# invariants(ASK): what check_invariants() finds.
sub invariants
{
	my ($ask) = @_;

	return map { "$_->[0]: $_->[1]" } @{ $ask->('SELECT name, left(detail, 1000) FROM gpu_orch.check_invariants() WHERE NOT holds') };
}

# tasks(ASK, LEDGER...): tasks that are not what the clients were told, and how many were told to be there. All tasks
# must have ended.
sub tasks
{
	my ($ask, @ledgers) = @_;
	my %task = map { $_->[0] => $_->[1] } @{ $ask->('SELECT idempotency_key, id FROM gpu_orch.task') };
	my %end = map { $_->[0] => $_->[1] } @{ $ask->('SELECT DISTINCT ON (task_id) task_id, final_state FROM gpu_orch.attempt ORDER BY task_id, attempt DESC') };
	my %succeeded = map { $_->[0] => $_->[1] } @{ $ask->(q{SELECT task_id, lease FROM gpu_orch.attempt WHERE outcome = 'succeeded'}) };
	my (@wrong, %outcome, $submitted);

	for my $ledger (@ledgers)
	{
		open my $file, '<', $ledger or die "$ledger: $!";
		while (my $line = <$file>)
		{
			chomp $line;
			my ($outcome, $what, @those) = split /\t/, $line;

			if ($what eq 'complete')
			{
				my ($id, $lease) = @those;

				push @wrong, "task $id: the completion of lease $lease was accepted, but is not there"
				  if ($succeeded{$id} // '') ne $lease;
				next;
			}
			my ($key, $id) = @those;
			$outcome{$key} = $outcome;
			push @wrong, "task $key was submitted as $id, but is " . ($task{$key} // 'not there')
			  if $outcome eq 'done' && ($task{$key} // '') ne $id;
			$submitted++ if $outcome eq 'done';
		}
	}
	for my $key (sort keys %task)
	{
		my $outcome = $outcome{$key} // 'never tried';

		push @wrong, "task $key is there, but its submission was $outcome" unless $outcome =~ /^(?:done|unknown)$/;
		push @wrong, "task $key ($task{$key}) has no end" unless defined $end{ $task{$key} };
	}
	return (\@wrong, $submitted // 0);
}

1;
