# Points.pm: the labelled steps of the library at which a process can be stopped: their names, a library that has
# them, and one armed at a time. Must not know when a round wants which.
package Points;

use strict;
use warnings FATAL => 'all';

# What comes of a point. Most are kills: that is what nothing may be lost by.
our @actions = qw(kill kill kill kill error term);

# names(SOURCES): the points that the sources in that folder and its folders name.
sub names
{
	my ($sources) = @_;
	my %name;

	for my $path (glob "$sources/*.c $sources/*/*.c $sources/*/*/*.c")
	{
		open my $file, '<', $path or die "$path: $!";
		$name{$_} = 1 for join('', <$file>) =~ /\bINJECT\("([a-z_.]+)"\)/g;
	}
	die "no source in $sources names a point\n" unless %name;
	return sort keys %name;
}

# build(TREE, FOLDER): the library with points, made from the tree's sources in that folder.
sub build
{
	my ($tree, $folder) = @_;

	mkdir $folder or die "$folder: $!";
	system("cd '$tree' && cp -r Makefile gpu_orch.control gpu_orch.map src sql '$folder' && find '$folder'/src -name '*.o' -delete"
		. " && make -s -j2 -C '$folder' INJECT=1 with_llvm=no gpu_orch.so > '$folder/log' 2>&1") == 0
		or die "the library with points could not be built, see $folder/log\n";
	return;
}

# arm(DATA, POINT, ACTION): whoever reaches the point first, in the server with that data directory, meets the
# action. What was armed before is not any more.
sub arm
{
	my ($data, $point, $action) = @_;

	open my $file, '>', "$data/gpu_orch.inject.new" or die "$data: $!";
	print $file "$point $action\n";
	close $file or die "$data: $!";
	rename "$data/gpu_orch.inject.new", "$data/gpu_orch.inject" or die "$data: $!";
	return;
}

sub is_reached { my ($data) = @_; return !-e "$data/gpu_orch.inject"; }

# disarm(DATA): whether nobody has reached it, nor can any more.
sub disarm { my ($data) = @_; return unlink "$data/gpu_orch.inject"; }

1;
