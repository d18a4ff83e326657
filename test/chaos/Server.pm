# Server.pm: the throwaway server that chaos kills: made, started, killed in several ways, brought back with
# the clock that it had, and asked. Its clock is moved together with the provider's alone. Must not know what a
# round wants of it.
package Server;

use strict;
use warnings FATAL => 'all';
use File::Path qw(rmtree);
use POSIX qw(WNOHANG setsid);
use Time::HiRes qw(sleep time);
use Wire;

my $database = 'chaos';

# new(DIRECTORY, KEY, LIBRARY): a server in that folder, not started; KEY is the provider's, LIBRARY the folder of the
# library that is loaded in the place of the installed one, if not undef.
sub new
{
	my ($class, $directory, $key, $library) = @_;
	my $bin = `"\${PG_CONFIG:-pg_config}" --bindir`;
	chomp $bin;
	my $self = bless {directory => $directory, data => "$directory/data", bin => $bin, offset => 0}, $class;

	umask 077;
	_write("$directory/api_key", $key);
	$self->_make_pristine($library);
	return $self;
}

sub host { return $_[0]{directory}; }
sub port { return $ENV{PGPORT} || 5432; }
sub data { return $_[0]{data}; }
sub log_file { return "$_[0]{directory}/server.log"; }

sub _write
{
	my ($path, $text) = @_;

	open my $file, '>', $path or die "$path: $!";
	print $file $text;
	close $file or die "$path: $!";
	return;
}

# Start a program; its output goes to a file. Returns its process id.
sub _spawn
{
	my ($self, $log, @command) = @_;
	my $pid = fork() // die "fork: $!";

	if ($pid == 0)
	{
		setsid();
		open STDIN, '<', '/dev/null';
		open STDOUT, '>>', $log;
		open STDERR, '>&', \*STDOUT;
		$SIG{$_} = 'DEFAULT' for qw(INT TERM HUP PIPE);
		exec @command or POSIX::_exit(127);
	}
	return $pid;
}

# A data directory that each round begins with a copy of: the database, the extension in it, nothing else.
sub _make_pristine
{
	my ($self, $library) = @_;
	my $log = "$self->{directory}/programs.log";

	waitpid $self->_spawn($log, "$self->{bin}/initdb", '-D', $self->{data}, '-U', 'postgres', '-A', 'trust', '-N',
		'--locale=C.UTF-8', '-E', 'UTF8', '--wal-segsize=1'), 0;
	$? == 0 or die "initdb failed, see $log\n";
	$self->configure;
	$self->{first} = 'postgres';
	$self->_start(0);
	for my $statement ([ 'postgres', "CREATE DATABASE $database" ], [ $database, 'CREATE EXTENSION gpu_orch' ],
		[ $database, 'CREATE ROLE pod LOGIN IN ROLE gpu_orch_worker, gpu_orch_submitter' ],
		$library ? [ $database, q{UPDATE pg_proc SET probin = 'gpu_orch' WHERE probin = '$libdir/gpu_orch'} ] : (),
		# What is not needed need not be copied.
		[ $database, q{UPDATE pg_database SET datistemplate = false WHERE datname = 'template0'} ],
		[ $database, 'DROP DATABASE template0' ], [ $database, 'DROP DATABASE postgres' ], [ $database, 'CHECKPOINT' ])
	{
		my $wire = Wire->new($self, $statement->[0], 'postgres');

		$wire->send_query($statement->[1]);
		my $answer = $wire->answer;
		die "$statement->[1]: $answer->{message}\n" if defined $answer->{state};
	}
	delete $self->{first};
	$self->{always} = {dynamic_library_path => "$library:\$libdir"} if $library;
	kill 'INT', $self->postmaster;
	$self->_wait_until_gone($self->postmaster);
	rename $self->{data}, "$self->{directory}/pristine" or die "$self->{data}: $!";
	return;
}

# configure(SETTING => VALUE...): the settings of the next start; they are kept over restarts.
sub configure
{
	my ($self, %settings) = @_;

	$self->{settings} = {
		listen_addresses => '',
		unix_socket_directories => $self->{directory},
		fsync => 'off',
		shared_buffers => '32MB',
		max_connections => 60,
		max_wal_size => '64MB',
		min_wal_size => '2MB',
		shared_preload_libraries => 'gpu_orch',
		'gpu_orch.database' => $database,
		'gpu_orch.test_clock' => 'on',
		'gpu_orch.runpod_api_key_file' => "$self->{directory}/api_key",
		'gpu_orch.worker_dsn' => sprintf('host=%s port=%d dbname=%s user=pod', $self->host, $self->port, $database),
		%{ $self->{always} // {} },
		%settings };
	return;
}

# Write the settings and who may connect: everybody, or, while the clock is not right, we alone.
sub _write_settings
{
	my ($self, $open) = @_;
	my %settings = (%{ $self->{settings} }, 'gpu_orch.enabled' => $open ? 'on' : 'off');

	_write("$self->{data}/postgresql.conf", join '', map { "$_ = '$settings{$_}'\n" } sort keys %settings);
	_write("$self->{data}/pg_hba.conf", 'local all ' . ($open ? 'all' : 'postgres') . " trust\n");
	return;
}

# The postmaster's process id, 0 where none runs.
sub postmaster
{
	my ($self) = @_;

	waitpid $self->{child}, WNOHANG if $self->{child};
	open my $file, '<', "$self->{data}/postmaster.pid" or return 0;
	my $pid = (<$file> // '0') + 0;
	return $pid > 0 && !is_ended($pid) ? $pid : 0;
}

# is_ended(PID): whether a process has ended, though its parent may not have taken note yet.
sub is_ended
{
	my ($pid) = @_;

	open my $stat, '<', "/proc/$pid/stat" or return 1;
	return (<$stat> // ') Z') =~ /\) [ZX]/;
}

sub children
{
	my ($pid) = @_;

	return grep {
		my $opened = open my $stat, '<', "/proc/$_/stat";
		$opened && (<$stat> // '') =~ /\) \S $pid /;
	} map { m{(\d+)} } glob '/proc/[0-9]*';
}

# One try to start it; whether it answers.
sub _try_to_start
{
	my ($self) = @_;

	$self->{child} = $self->_spawn($self->log_file, "$self->{bin}/postgres", '-D', $self->{data}, '-p', $self->port);
	for (1 .. 3000)
	{
		return 1 if eval { Wire->new($self, $self->{first} // $database, 'postgres') };
		last if waitpid $self->{child}, WNOHANG;
		sleep 0.01;
	}
	kill 'KILL', $self->{child};
	return 0;
}

# Start it closed, or open at once. What is left of a server that was killed is cleared away first.
sub _start
{
	my ($self, $open) = @_;

	$self->_write_settings($open);
	unlink "$self->{data}/postmaster.pid", $self->host . '/.s.PGSQL.' . $self->port . '.lock';
	for my $try (1 .. 100)
	{
		last if $self->_try_to_start;
		die "the server does not start, see " . $self->log_file . "\n" if $try == 100;
		sleep 0.1;
	}
	return;
}

# start(): start it closed, set the clock to where it was, and open it.
sub start
{
	my ($self) = @_;

	delete $self->{connection};
	if ($self->{offset} == 0)
	{
		$self->_start(1);
		return;
	}
	$self->_start(0);
	$self->set_clock;
	$self->_write_settings(1);
	kill 'HUP', $self->postmaster;
	return;
}

# Wait until a postmaster is gone, ten seconds at most: what was killed may have been ending by itself.
sub _wait_until_gone
{
	my ($self, $pid) = @_;

	for (1 .. 1000)
	{
		return if $self->postmaster != $pid || $pid == 0;
		sleep 0.01;
	}
	return;
}

# kill_all(): kill -9 the postmaster, and wait until its children have seen it.
sub kill_all
{
	my ($self) = @_;
	my $postmaster = $self->postmaster or return;
	my @children = children($postmaster);

	delete $self->{connection};
	kill 'KILL', $postmaster;
	for my $turn (1 .. 1000)
	{
		last unless grep { !is_ended($_) } $postmaster, @children;
		kill 'KILL', @children if $turn == 100;
		sleep 0.01;
	}
	waitpid $self->{child}, WNOHANG if $self->{child};
	return;
}

sub comes_back_alone { return $_[0]{settings}{restart_after_crash} eq 'on'; }

# revive(): start it, if it is gone and does not come back by itself.
sub revive
{
	my ($self) = @_;

	return if $self->comes_back_alone || $self->postmaster;
	$self->start;
	return;
}

# recover(POSTMASTER): after a kill -9 of one of the processes of that postmaster: wait until the server is back by
# itself, or, where it does not come back by itself, until it is gone, and start it with the clock that it had.
sub recover
{
	my ($self, $postmaster) = @_;

	delete $self->{connection};
	$self->_wait_until_gone($postmaster) unless $self->comes_back_alone;
	$self->revive;
	$self->sql('SELECT 1');
	return;
}

# fresh(SETTING => VALUE...): a server with an empty database that has the extension, and the clock at zero.
sub fresh
{
	my ($self, %settings) = @_;

	$self->kill_all;
	rmtree($self->{data});
	system('cp', '-a', "$self->{directory}/pristine", $self->{data}) == 0 or die "cp: $?\n";
	$self->configure(%settings);
	$self->{offset} = 0;
	$self->start;
	return;
}

# try_sql(QUERY): its rows, or undef where it failed or the server went away; $@ says why.
sub try_sql
{
	my ($self, $query) = @_;
	my $answer = eval {
		$self->{connection} ||= Wire->new($self, $database, 'postgres');
		$self->{connection}->send_query($query);
		$self->{connection}->answer;
	};

	if (!$answer)
	{
		delete $self->{connection};
		return;
	}
	return $answer->{rows} unless defined $answer->{state};
	$@ = "$answer->{state} $answer->{message}\n";
	return;
}

# sql(QUERY): its first row, as a list; tries again while the server is away, dies on an error of ours.
sub sql
{
	my ($self, $query) = @_;

	my $why = '';

	for (1 .. 1500)
	{
		my $rows = $self->try_sql($query);

		return @{ $rows->[0] // [] } if $rows;
		die "$query: $@" if $@ =~ /^(?!57|08|53|XX)[0-9A-Z]{5} /;
		$why = $@;
		$self->revive;
		sleep 0.02;
	}
	die "$query: no answer in time: $why\n";
}

# set_clock(): bring the clock to its offset, which a crash has set back to nothing. A crash may come in between.
sub set_clock
{
	my ($self) = @_;

	for (1 .. 100)
	{
		my ($lag) = $self->sql(
			"SELECT $self->{offset} - extract(epoch FROM gpu_orch.clock() - pg_catalog.clock_timestamp())");

		return if abs $lag <= 0.001;
		$self->try_sql("SELECT gpu_orch.advance_clock('$lag seconds')");
	}
	die "the clock cannot be set: $@\n";
}

# step(SECONDS): move the clock; returns where it was before, in seconds.
sub step
{
	my ($self, $seconds) = @_;

	$self->set_clock;
	my ($at) = $self->sql('SELECT extract(epoch FROM gpu_orch.clock())');
	$self->{offset} += $seconds;
	$self->set_clock;
	return $at;
}

1;
